// SPDX-License-Identifier: Apache-2.0
// <windows.h> without the macros that break C++; for .cc files only.
#pragma once

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
