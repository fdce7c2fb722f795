// SPDX-License-Identifier: Apache-2.0
#include "text/pattern.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace trine::text {

namespace {

constexpr size_t kMostBytes = 4096;
constexpr uint32_t kEndless = ~uint32_t{0};
constexpr int kMostDepth = 16;
// Of a search: what real expressions need is a few for each character.
constexpr size_t kMostTries = 1 << 20;

}  // namespace

bool Pattern::CharSet::holds(char32_t c) const noexcept {
  if (c < 128) return ascii[c];
  if (!above) return false;
  bool in = flags != 0 && has(c, flags);
  for (size_t i = 0; !in && i < lacking.size(); ++i) in = !has(c, lacking[i]);
  for (size_t i = 0; !in && i < ranges.size(); ++i)
    in = c >= ranges[i].first && c <= ranges[i].second;
  return in != negated;
}

void Pattern::CharSet::add(char32_t c) noexcept {
  if (c < 128) {
    ascii.set(c);
  } else {
    ranges.emplace_back(c, c);
  }
}

struct Pattern::Rest {
  const Item* item;
  const Item* end;
  const Rest* next;
};

class PatternParser {
 public:
  using Item = Pattern::Item;
  using CharSet = Pattern::CharSet;
  PatternParser(std::string_view text, Pattern& pattern) : text_(text), pattern_(pattern) {}

  void parse() {
    pattern_.choices_ = choices(0);
    if (at_ < text_.size()) fail("a ')' without a group");
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw ModelError(cat("the expression ", quoted(text_), " has ", what, ", at byte ", at_,
                         ", which the C++ tokenizer does not know"));
  }
  bool more() const noexcept { return at_ < text_.size(); }
  bool eat(std::string_view part) noexcept {
    if (!text_.substr(at_).starts_with(part)) return false;
    at_ += part.size();
    return true;
  }
  char32_t character() {
    if (!more()) fail("an end where a character is needed");
    const char* at = text_.data() + at_;
    const char32_t c = next_char(at);
    at_ = static_cast<size_t>(at - text_.data());
    return c;
  }

  std::vector<Pattern::Sequence> choices(int depth) {
    if (depth > kMostDepth) fail("groups within groups");
    std::vector<Pattern::Sequence> all(1);
    char32_t before = 0;  // a literal in a group that ignores case
    while (more() && text_[at_] != ')') {
      if (eat("|")) {
        all.emplace_back();
        before = 0;
        continue;
      }
      all.back().push_back(item(depth, before));
    }
    return all;
  }

  Item item(int depth, char32_t& before) {
    Item item;
    const bool group = text_[at_] == '(';
    if (group) {
      this->group(item, depth);
      before = 0;
    } else {
      item.set = set(before);
    }
    repetition(item);
    if (group && item.most != 1) fail("a group that is repeated");
    if (item.kind != Pattern::Kind::kSet && item.kind != Pattern::Kind::kGroup && item.least != 1)
      fail("a lookahead that is repeated");
    return item;
  }

  void group(Item& item, int depth) {
    const bool ignored = ignores_case_;
    if (eat("(?i:")) {
      ignores_case_ = true;
      item.kind = Pattern::Kind::kGroup;
    } else if (eat("(?:")) {
      item.kind = Pattern::Kind::kGroup;
    } else if (eat("(?!")) {
      item.kind = Pattern::Kind::kNotAhead;
    } else if (eat("(?=")) {
      item.kind = Pattern::Kind::kAhead;
    } else if (text_.substr(at_).starts_with("(?")) {
      fail("a group of another kind");
    } else {
      ++at_;
      item.kind = Pattern::Kind::kGroup;
    }
    item.choices = choices(depth + 1);
    if (!eat(")")) fail("a group without an end");
    ignores_case_ = ignored;
  }

  void repetition(Item& item) {
    if (eat("?")) {
      item.least = 0;
    } else if (eat("*")) {
      item.least = 0, item.most = kEndless;
    } else if (eat("+")) {
      item.most = kEndless;
    } else if (eat("{")) {
      item.least = number();
      item.most = item.least;
      if (eat(",")) item.most = text_.substr(at_).starts_with("}") ? kEndless : number();
      if (!eat("}") || item.most < item.least || item.most == 0) fail("a repetition that is odd");
    } else {
      return;
    }
    if (more() &&
        (text_[at_] == '?' || text_[at_] == '+' || text_[at_] == '*' || text_[at_] == '{'))
      fail("a repetition of another kind");
  }

  uint32_t number() {
    uint32_t value = 0;
    const size_t start = at_;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9' && at_ - start < 4; ++at_)
      value = value * 10 + static_cast<uint32_t>(text_[at_] - '0');
    if (at_ == start) fail("a repetition without a number");
    return value;
  }

  uint32_t set(char32_t& before) {
    CharSet set;
    char32_t literal = 0;
    if (eat("[")) {
      if (ignores_case_) fail("a class in a group that ignores case");
      bracket(set);
    } else if (eat("\\")) {
      literal = escape(set);
    } else if (std::string_view("^$.*+?{}").find(text_[at_]) != std::string_view::npos) {
      fail("a special character");
    } else {
      literal = character();
    }
    if (literal != 0) one(set, literal, before);
    before = literal;
    return finish(set);
  }

  // A literal; where case is ignored with what Unicode folds to it.
  void one(CharSet& set, char32_t c, char32_t before) {
    set.add(c);
    if (!ignores_case_) return;
    if (c >= 128) fail("a letter beyond ASCII in a group that ignores case");
    if (c - U'A' < 26) c += 32;
    if (c - U'a' >= 26) return;
    set.add(c);
    set.add(c - 32);
    if (c == 's') set.add(0x17F);
    if (c == 'k') set.add(0x212A);
    // Ligatures fold to two letters.
    const char32_t last = before - U'A' < 26 ? before + 32 : before;
    if ((last == 's' && (c == 's' || c == 't')) ||
        (last == 'f' && (c == 'f' || c == 'i' || c == 'l')))
      fail("letters that have a ligature in a group that ignores case");
  }

  // After a backslash: adds a class, or returns a literal.
  char32_t escape(CharSet& set) {
    const char32_t c = character();
    switch (c) {
      case 's':
        set.flags |= kSpace;
        return 0;
      case 'S':
        set.lacking.push_back(kSpace);
        return 0;
      case 'w':
        set.flags |= kOnigWord;
        return 0;
      case 'W':
        set.lacking.push_back(kOnigWord);
        return 0;
      case 'r':
        return '\r';
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'p':
      case 'P': {
        const unsigned flag = eat("{L}") ? kLetter : eat("{N}") ? kNumber : eat("{P}") ? kPunct : 0;
        if (flag == 0) fail("a property other than L, N and P");
        if (c == 'p') {
          set.flags |= flag;
        } else {
          set.lacking.push_back(flag);
        }
        return 0;
      }
      default:
        break;
    }
    if (c >= 128 || !has(c, kPunctuation)) fail("an escape");
    return c;
  }

  void bracket(CharSet& set) {
    set.negated = eat("^");
    bool any = false;
    while (!eat("]")) {
      any = true;
      if (text_.substr(at_).starts_with("[")) fail("a class within a class");
      if (text_.substr(at_).starts_with("&&")) fail("an intersection of classes");
      const char32_t first = eat("\\") ? escape(set) : character();
      if (first == 0) continue;
      const bool range = at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']';
      if (!range) {
        set.add(first);
        continue;
      }
      ++at_;
      const size_t classes = set.lacking.size();
      const unsigned flags = set.flags;
      const char32_t last = eat("\\") ? escape(set) : character();
      if (last < first || set.flags != flags || set.lacking.size() != classes)
        fail("a range that is odd");
      for (char32_t c = first; c <= last && c < 128; ++c) set.ascii.set(c);
      if (last >= 128) set.ranges.emplace_back(std::max<char32_t>(first, 128), last);
    }
    if (!any) fail("a class without characters");
  }

  uint32_t finish(CharSet& set) {
    for (char32_t c = 0; c < 128; ++c) {
      bool in = set.ascii[c] || (set.flags != 0 && has(c, set.flags));
      for (const unsigned flag : set.lacking) in = in || !has(c, flag);
      set.ascii.set(c, in != set.negated);
    }
    set.above = set.negated || set.flags != 0 || !set.lacking.empty() || !set.ranges.empty();
    pattern_.sets_.push_back(std::move(set));
    return static_cast<uint32_t>(pattern_.sets_.size() - 1);
  }

  std::string_view text_;
  Pattern& pattern_;
  size_t at_ = 0;
  bool ignores_case_ = false;
};

Pattern::Pattern(const Json& description) {
  if (description.as_object().size() != 1)
    throw ModelError("a pattern has one key, 'String' or 'Regex'");
  if (const Json* text = description.find("String")) {
    literal_ = text->as_string();
    if (literal_.empty()) throw ModelError("a pattern is empty");
    return;
  }
  const std::string& text = description.at("Regex").as_string();
  if (text.size() > kMostBytes)
    throw ModelError(cat("an expression has ", text.size(), " bytes, at most ", kMostBytes));
  PatternParser(text, *this).parse();
  for (const Sequence& choice : choices_) {
    bool empty = true;
    first_bytes(choice, 0, starts_.emplace_back(), empty);
    if (empty) throw ModelError(cat("the expression ", quoted(text), " fits an empty text"));
    start_ |= starts_.back();
  }
}

// Adds the bytes that the sequence can begin with; `empty` becomes false when one must come.
void Pattern::first_bytes(const Sequence& sequence, size_t from, std::bitset<256>& out,
                          bool& empty) const {
  for (size_t i = from; i < sequence.size(); ++i) {
    const Item& item = sequence[i];
    if (item.kind == Kind::kSet) {
      const CharSet& set = sets_[item.set];
      for (size_t byte = 0; byte < 256; ++byte) {
        if (byte < 128 ? set.ascii[byte] : set.above) out.set(byte);
      }
      if (item.least > 0) {
        empty = false;
        return;
      }
    } else if (item.kind == Kind::kGroup) {
      bool any_empty = item.least == 0;
      for (const Sequence& choice : item.choices) {
        bool choice_empty = true;
        first_bytes(choice, 0, out, choice_empty);
        any_empty = any_empty || choice_empty;
      }
      if (!any_empty) {
        empty = false;
        return;
      }
    }
  }
}

const char* Pattern::repeat(const Item* item, const Item* end, const char* at, Search& search,
                            const Rest* rest) const {
  const CharSet& set = sets_[item->set];
  const char* const start = at;
  uint32_t count = 0;
  while (count < item->most && at != search.limit) {
    const char* next = at;
    if (!set.holds(next_char(next))) break;
    at = next;
    ++count;
  }
  if (count < item->least) return nullptr;
  const bool last = item + 1 == end && rest == nullptr;
  for (;; --count) {
    if (search.tries-- == 0) throw InputError("an expression of the tokenizer takes too long");
    const char* const found = last ? at : match(item + 1, end, at, search, rest);
    if (found != nullptr || count == item->least) return found;
    do --at;
    while (at != start && is_tail(*at));
  }
}

// Where the match ends, or null.
const char* Pattern::match(const Item* item, const Item* end, const char* at, Search& search,
                           const Rest* rest) const {
  for (;; ++item) {
    if (item == end) {
      if (rest == nullptr) return at;
      return match(rest->item, rest->end, at, search, rest->next);
    }
    const auto any = [&](const Rest* behind) -> const char* {
      for (const Sequence& choice : item->choices) {
        const Item* const first = choice.data();
        if (const char* found = match(first, first + choice.size(), at, search, behind))
          return found;
      }
      return nullptr;
    };
    switch (item->kind) {
      case Kind::kSet:
        if (item->least != 1 || item->most != 1) return repeat(item, end, at, search, rest);
        if (at == search.limit || !sets_[item->set].holds(next_char(at))) return nullptr;
        break;
      case Kind::kGroup: {
        const Rest behind{item + 1, end, rest};
        if (const char* found = any(&behind)) return found;
        if (item->least == 1) return nullptr;
        break;
      }
      case Kind::kAhead:
        if (any(nullptr) == nullptr) return nullptr;
        break;
      case Kind::kNotAhead:
        if (any(nullptr) != nullptr) return nullptr;
        break;
    }
  }
}

bool Pattern::find(std::string_view text, size_t from, Match& found) const {
  if (!literal_.empty()) {
    found.begin = text.find(literal_, from);
    found.end = found.begin + literal_.size();
    return found.begin != text.npos;
  }
  Search search{text.data() + text.size(), kMostTries + 64 * text.size()};
  for (const char* at = text.data() + from; at != search.limit; at += char_length(*at)) {
    const auto byte = static_cast<uint8_t>(*at);
    if (!start_[byte]) continue;
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (!starts_[i][byte]) continue;
      const Item* const first = choices_[i].data();
      const char* const end = match(first, first + choices_[i].size(), at, search, nullptr);
      if (end == nullptr) continue;
      found = {static_cast<size_t>(at - text.data()), static_cast<size_t>(end - text.data())};
      return true;
    }
  }
  return false;
}

}  // namespace trine::text
