// Exceptions become text. For the C++ half only; seam.h is what Rust sees.
#pragma once
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include <c10/util/Exception.h>

// A text for Rust, to be freed with spiketrace_text_free. Where there is no memory even for that, the program ends: null
// would say that all went well.
inline char* text_of(const char* text) noexcept {
  char* copy = strdup(text);
  if (!copy) std::terminate();
  return copy;
}

// Runs `body` and turns what it throws into text.
template <typename Body>
char* guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return text_of(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return text_of(e.what());
  } catch (...) {
    return text_of("an exception of unknown type");
  }
}

// The way back: throws what a guarded function answered, where it is an error.
inline void rethrow(char* text) {
  if (!text) return;
  const std::string copy(text);
  std::free(text);
  throw std::runtime_error(copy);
}
