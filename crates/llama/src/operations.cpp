// ggml asks before each operation whether something else computes it, and how much work space that needs. The linker's
// --wrap leads both questions here, and Rust answers for the few operations it computes faster; all others go on to ggml's
// own answer. Without --wrap nobody calls this, and the weak names stay empty: the program runs on ggml's operations alone.

#include <cstddef>

struct ggml_compute_params;
struct ggml_tensor;

extern "C" {
bool ingle_llama_compute(const ggml_compute_params * params, ggml_tensor * node);
std::size_t ingle_llama_work_bytes(const ggml_tensor * node);
__attribute__((weak)) bool __real_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * node);
__attribute__((weak)) bool __real_ggml_cpu_extra_work_size(int n_threads, const ggml_tensor * node, std::size_t * size);

bool __wrap_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * node) {
    if (ingle_llama_compute(params, node)) {
        return true;
    }
    return __real_ggml_cpu_extra_compute_forward && __real_ggml_cpu_extra_compute_forward(params, node);
}

bool __wrap_ggml_cpu_extra_work_size(int n_threads, const ggml_tensor * node, std::size_t * size) {
    const std::size_t ours = ingle_llama_work_bytes(node);
    if (ours > 0) {
        *size = ours;
        return true;
    }
    return __real_ggml_cpu_extra_work_size && __real_ggml_cpu_extra_work_size(n_threads, node, size);
}
}
