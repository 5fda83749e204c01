// Exceptions become text. For the C++ half only; seam.h is what Rust sees.
#pragma once
#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

// Runs `body` and turns what it throws into text.
template <typename Body>
char* guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}
