// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "text/normalizer.h"

namespace trine::text {

// SentencePiece's table of replacements, in base64. ModelError unless every step in it leads
// inside.
std::unique_ptr<const Normalizer> make_precompiled(std::string_view charsmap);

}  // namespace trine::text
