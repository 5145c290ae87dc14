//! GGUF models through llama.cpp.
