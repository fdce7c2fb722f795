// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "base/json.h"
#include "check.h"

namespace trine::test {

static Json parse(std::string_view text, const JsonLimits& limits = {}) {
  return Json::parse(text, "test.json", limits);
}

// Text that must be refused, with a part of the message.
static void refuses(std::string_view text, std::string_view part) {
  CHECK_THROWS_WITH(parse(text), ModelError, part);
}

static std::string repeat(std::string_view text, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += text;
  return out;
}

TEST(json_values) {
  const Json json =
      parse(R"( {"a": [1, -2, 3.5, true, false, null, "x"], "b": {"c": {}}, "d": []} )");
  const Json::Array& a = json.at("a").as_array();
  CHECK_EQ(a.size(), 7u);
  CHECK_EQ(a[0].as_int(), 1);
  CHECK_EQ(a[1].as_int(), -2);
  CHECK_EQ(a[2].as_double(), 3.5);
  CHECK(a[3].as_bool() && !a[4].as_bool() && a[5].is_null());
  CHECK_EQ(a[6].as_string(), "x");
  CHECK_EQ(json.at("b").at("c").as_object().size(), 0u);
  CHECK(json.find("z") == nullptr);
  CHECK_THROWS_WITH(json.at("z"), ModelError, "missing key 'z'");
  CHECK_THROWS_WITH(json.at("a").as_int(), ModelError, "expected an integer, found an array");
  CHECK_THROWS_WITH(a[6].as_double(), ModelError, "expected a number, found a string");
  std::string order;
  for (const JsonMember& member : json.as_object()) order += member.key;
  CHECK_EQ(order, "abd");
}

TEST(json_numbers) {
  CHECK_EQ(parse("9223372036854775807").as_int(), INT64_MAX);
  CHECK_EQ(parse("-9223372036854775808").as_int(), INT64_MIN);
  CHECK_EQ(parse("18446744073709551615").as_uint(), UINT64_MAX);
  CHECK_EQ(parse("7").as_uint(), 7u);
  CHECK_EQ(parse("7").as_double(), 7.0);
  CHECK_THROWS_WITH(parse("-7").as_uint(), ModelError, "expected an integer");
  // What tokenizer_config.json holds for "no limit".
  CHECK_EQ(parse("1000000000000000019884624838656").as_double(), 1e30);
  CHECK_EQ(parse("-9223372036854775809").as_double(), -9223372036854775809.0);
  CHECK_EQ(parse("0.1").as_double(), 0.1);
  CHECK_EQ(parse("1E-07").as_double(), 1e-7);
  CHECK_EQ(parse("5e-324").as_double(), std::numeric_limits<double>::denorm_min());
  CHECK_EQ(parse("1.7976931348623157e308").as_double(), std::numeric_limits<double>::max());
  CHECK(std::signbit(parse("-0").as_double()) && std::signbit(parse("-0.0").as_double()));
  CHECK(parse("10").type() == JsonType::kInt && parse("10.0").type() == JsonType::kDouble);
  refuses("1e999", "out of the range of double");
  refuses("01", "leading zero");
  refuses("-01", "leading zero");
  refuses("-", "expected a digit after '-'");
  refuses("1.", "expected a digit after the point");
  refuses("1e+", "expected a digit in the exponent");
  for (const char* text : {"+1", ".5", "NaN", "Infinity", "0x10", "1_000", "1 2"})
    refuses(text, "");
}

TEST(json_strings) {
  CHECK_EQ(parse(R"("\"\\\/\b\f\n\r\t")").as_string(), "\"\\/\b\f\n\r\t");
  CHECK_EQ(parse(R"("\u0041\u00e9\u20AC\ud83d\ude00")").as_string(), "Aé€😀");
  CHECK_EQ(parse("\"é€😀\"").as_string(), "é€😀");
  CHECK_EQ(parse(R"("a\u0000b")").as_string(), std::string_view("a\0b", 3));
  refuses(R"("\ud83d")", "half of a surrogate pair");
  refuses(R"("\ude00\ud83d")", "half of a surrogate pair");
  refuses(R"("\ud83d\u0041")", "half of a surrogate pair");
  refuses(R"("\x41")", "unknown escape");
  refuses(R"("\u12g4")", "four hexadecimal digits");
  refuses(R"("\u12)", "four hexadecimal digits");
  refuses("\"\\", "unknown escape");
  refuses("\"abc", "string without an end");
  refuses("\"a\nb\"", "control character");
  refuses("'a'", "expected a value");
}

TEST(json_utf8) {
  for (const char* good : {"\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                           "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    CHECK_EQ(parse(cat("\"", good, "\"")).as_string(), good);
  }
  for (const char* bad : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41",
                          "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xF0\x90\x80"}) {
    refuses(cat("\"", bad, "\""), "invalid UTF-8");
    refuses(cat("\"", bad), "");
  }
}

TEST(json_structure) {
  for (const char* bad : {"",         " ",          "{",     "[",     "[1",
                          "[1,",      "[1,]",       "[,1]",  "[1 2]", "{\"a\"}",
                          "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\":1 \"b\":2}",
                          "]",        "}",          "[}",    "{]",    "nul",
                          "tru",      "truex",      "[1]]",  "null,", "\xEF\xBB\xBF{}",
                          "/**/1"}) {
    refuses(bad, "test.json: ");
  }
  refuses("[1]x", "text after the end");
  refuses(std::string_view("1\0", 2), "text after the end");
}

TEST(json_error_position) {
  refuses("{\n  \"a\": {\"b\": [1, 2, x]}\n}",
          "expected a value in 'a'.'b'[2] (line 2, column 21, byte 22)");
  refuses("{\"a\\\"\": {\"b\": 01}}", "in 'a\\\"'.'b' (line 1");
}

TEST(json_duplicate_keys) {
  refuses(R"({"a": 1, "b": 2, "a": 3})", "key 'a' comes twice");
  refuses(R"({"a": 1, "\u0061": 3})", "key 'a' comes twice");
  const JsonLimits lenient{.allow_duplicate_keys = true};
  const Json json = parse(R"({"a": 1, "b": 2, "a": 3, "c": 4, "b": 5, "a": 6})", lenient);
  CHECK_EQ(json.dump(), R"({"c":4,"b":5,"a":6})");
  CHECK_EQ(json.at("a").as_int(), 6);
  CHECK_EQ(json.at("c").as_int(), 4);
}

TEST(json_limits) {
  CHECK(parse(repeat("[", 128) + repeat("]", 128)).type() == JsonType::kArray);
  refuses(repeat("[", 129) + repeat("]", 129), "nested deeper than 128");
  refuses(repeat("{\"a\":", 1000000), "nested deeper than 128");
  CHECK_THROWS_WITH(parse("[1,2]", {.max_bytes = 4}), ModelError,
                    "5 bytes of JSON, the limit is 4");
  const std::string deep = repeat("[", 1000);
  JsonReader reader(deep, "test.json");
  CHECK_THROWS_WITH(reader.skip(), ModelError, "nested deeper");
}

TEST(json_round_trip) {
  for (const char* text :
       {R"({"a":[1,-2,3.5,true,false,null],"é":{"x":[]},"z":{}})", "0.1", "1e+300", "-0.0", "1.0",
        "18446744073709551615", R"("\"\\\n\u0001\u001f")", "5e-324", "123456789.123"}) {
    const Json json = parse(text);
    CHECK(parse(json.dump()) == json);
    CHECK(parse(json.dump(2)) == json);
    CHECK_EQ(json.dump(), text);
  }
  CHECK_EQ(parse(R"({"a":[1,{}],"b":[]})").dump(1), "{\n \"a\": [\n  1,\n  {}\n ],\n \"b\": []\n}");
  CHECK_THROWS_WITH(Json(std::nan("")).dump(), Error, "infinite number or NaN");
}

TEST(json_building) {
  JsonObject object;
  object.set("name", "trine");
  object.set("dims", Json::Array{1, uint8_t{2}, int64_t{-3}, UINT64_MAX, 0.5f, true, nullptr});
  object.set("name", std::string_view("other"));
  CHECK_EQ(Json(object).dump(),
           R"({"name":"other","dims":[1,2,-3,18446744073709551615,0.5,true,null]})");
  CHECK(Json(1) == Json(uint64_t{1}));
  JsonObject many;
  for (int i = 0; i < 1000; ++i) many.set(cat("key", i * 7919 % 1000), i);
  CHECK_EQ(many.size(), 1000u);
  for (int i = 0; i < 1000; ++i) CHECK_EQ(many.find(cat("key", i * 7919 % 1000))->as_int(), i);
}

TEST(json_reader_pulls) {
  JsonReader reader(R"({"skip": [{"x": "y"}, 1], "shape": [3, 18446744073709551615], "s": "t"} )",
                    "test.json");
  std::string key, text;
  std::vector<uint64_t> shape;
  for (reader.begin_object(); reader.next_key(key);) {
    if (key == "shape") {
      for (reader.begin_array(); reader.next_item();) shape.push_back(reader.unsigned_integer());
    } else if (key == "s") {
      reader.string(text);
    } else {
      reader.skip();
    }
  }
  reader.finish();
  CHECK(shape == (std::vector<uint64_t>{3, UINT64_MAX}));
  CHECK_EQ(text, "t");
  for (const char* bad : {"-1", "1.0", "1e2", "18446744073709551616", "-0", "\"1\"", "null"}) {
    JsonReader number(bad, "test.json");
    CHECK_THROWS_WITH(number.unsigned_integer(), ModelError, "expected");
  }
  JsonReader typed("[1]", "test.json");
  CHECK_THROWS_WITH(typed.begin_object(), ModelError, "expected an object");
}

// A vocabulary's shape. Quadratic work would take minutes here.
TEST(json_many_members) {
  constexpr int kMembers = 200000;
  std::string text = "{";
  for (int i = 0; i < kMembers; ++i) text += cat(i == 0 ? "" : ",", "\"token", i, "\":", i);
  text += '}';
  const Json json = parse(text);
  CHECK_EQ(json.as_object().size(), size_t{kMembers});
  int wrong = 0;
  for (int i = 0; i < kMembers; ++i) wrong += json.at(cat("token", i)).as_int() != i;
  CHECK_EQ(wrong, 0);
}

}  // namespace trine::test
