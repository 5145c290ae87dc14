// The one place where C++ exceptions end. Rust hands in a function that calls llama.cpp; whatever llama.cpp throws
// unwinds through that function and is caught here. No header of llama.cpp is needed for it.

#include <cstddef>
#include <cstring>
#include <exception>

// Runs body(data). Returns true when it returned; otherwise false, with the exception's text, cut to capacity - 1
// bytes and terminated by zero, in message.
extern "C" bool ingle_llama_guard(void (*body)(void *), void * data, char * message, std::size_t capacity) {
    const char * text = "unknown C++ exception";
    try {
        body(data);
        return true;
    } catch (const std::exception & error) {
        std::strncpy(message, error.what(), capacity - 1);
    } catch (...) {
        std::strncpy(message, text, capacity - 1);
    }
    message[capacity - 1] = '\0';
    return false;
}
