// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <utility>
#ifndef _WIN32
#include <sys/stat.h>
#endif

#include "base/mapped_file.h"
#include "check.h"

namespace trine::test {

static std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(mapped_file_reads) {
  const TempDir dir;
  const std::string content(100000, 'x');
  const MappedFile file(dir.write("a.bin", content));
  file.prefetch();
  CHECK(text_of(file) == content);
  CHECK(file.path() == dir.path() / "a.bin");
  CHECK_EQ(file.name(), display_name(dir.path() / "a.bin"));
}

TEST(mapped_file_moves) {
  const TempDir dir;
  MappedFile a(dir.write("a.bin", "first"));
  MappedFile b(std::move(a));
  a.prefetch();  // NOLINT(bugprone-use-after-move): what was moved from is empty, not broken
  CHECK(a.bytes().empty());
  CHECK_EQ(text_of(b), "first");
  MappedFile c(dir.write("c.bin", "second"));
  c = std::move(b);
  CHECK_EQ(text_of(c), "first");
  CHECK(c.path().filename() == "a.bin");
}

TEST(mapped_file_survives_replacement) {
  const TempDir dir;
  const MappedFile file(dir.write("a.bin", "old content"));
  std::error_code refused;
  std::filesystem::rename(dir.write("b.bin", "new"), dir.path() / "a.bin", refused);
  CHECK_EQ(text_of(file), "old content");
#ifndef _WIN32
  CHECK(!refused);
#endif
}

TEST(mapped_file_refuses) {
  const TempDir dir;
  CHECK_THROWS_WITH(MappedFile(dir.path() / "absent.bin"), ModelError, "absent.bin: cannot open: ");
  CHECK_THROWS_WITH(MappedFile(dir.path()), ModelError, "is a folder, not a file");
  CHECK_THROWS_WITH(MappedFile(dir.write("empty.bin", "")), ModelError,
                    "empty.bin: the file is empty");
#ifndef _WIN32
  // Must neither wait for a writer nor map something without end.
  const std::filesystem::path pipe = dir.path() / "pipe";
  CHECK_EQ(mkfifo(pipe.c_str(), 0600), 0);
  CHECK_THROWS_WITH(MappedFile(pipe), ModelError, "not a regular file");
  CHECK_THROWS_WITH(MappedFile("/dev/zero"), ModelError, "not a regular file");
#endif
}

TEST(mapped_file_unicode_name) {
  const TempDir dir;
  const std::filesystem::path name = dir.path() / std::filesystem::path(u8"modèle-模型.bin");
  std::ofstream(name, std::ios::binary) << "x";
  const MappedFile file(name);
  CHECK(file.name().find("modèle-模型.bin") != std::string::npos);
}

}  // namespace trine::test
