// The C ABI between Rust and libtorch's C++. Its Rust half is src/ffi/mod.rs.
//
// Every function that can fail returns its error as text (null: none), to be
// freed with spiketrace_text_free: no C++ exception and no Rust panic crosses.
// The others are noexcept: where one finds no memory the program ends, as
// Rust's own collections end it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace at { class Tensor; }

extern "C" {

// Tensors on their way through the seam, some of them undefined.
typedef struct SpiketraceList SpiketraceList;
// One application of a function: its saved tensors and flags.
typedef struct SpiketraceContext SpiketraceContext;

// What Rust hands to C++. `call` is the Rust value behind one application.
// forward and backward return 0, or 1 after setting the text of an error on `out`.
typedef struct SpiketraceCallbacks {
  int32_t (*forward)(void* call, SpiketraceContext* ctx, const SpiketraceList* in, SpiketraceList* out);
  int32_t (*backward)(void* call, SpiketraceContext* ctx, const SpiketraceList* in, SpiketraceList* out);
  void (*drop)(void* call);
} SpiketraceCallbacks;

SpiketraceList* spiketrace_list_new() noexcept;
void spiketrace_list_free(SpiketraceList* list) noexcept;
size_t spiketrace_list_len(const SpiketraceList* list) noexcept;
// Appends a tensor that stays the caller's; null appends an undefined one.
void spiketrace_list_push(SpiketraceList* list, const at::Tensor* tensor) noexcept;
// A new handle to element i, null where it is undefined.
at::Tensor* spiketrace_list_get(const SpiketraceList* list, size_t i) noexcept;
void spiketrace_list_fail(SpiketraceList* list, const char* text, size_t len) noexcept;

// Applies a function. Takes over `call` in any case: it is dropped exactly once.
char* spiketrace_apply(const SpiketraceCallbacks* callbacks, void* call,
                       const SpiketraceList* in, SpiketraceList* out);

char* spiketrace_save_for_backward(SpiketraceContext* ctx, const SpiketraceList* tensors);
char* spiketrace_saved_tensors(const SpiketraceContext* ctx, SpiketraceList* out);
char* spiketrace_mark_non_differentiable(SpiketraceContext* ctx, const SpiketraceList* outputs);
char* spiketrace_needs_input_grad(const SpiketraceContext* ctx, size_t input, bool* needed);

// Backward from y, whose gradient is `grad`.
char* spiketrace_backward(const at::Tensor* y, const at::Tensor* grad, bool keep_graph);

// How many handles and graphs hold the tensor, and how many tensors its memory; 0 for none, or where it is not
// libtorch's own.
size_t spiketrace_handles(const at::Tensor* tensor) noexcept;
size_t spiketrace_memory_handles(const at::Tensor* tensor) noexcept;
// Tells libtorch's checks of saved tensors that the tensor's memory was written.
void spiketrace_written(const at::Tensor* tensor) noexcept;

// Makes the linear or convolution operation that `y` comes from see x_r where it kept its input x for
// its weight's gradient. `done` tells whether such an operation on x was found.
char* spiketrace_learn_from(const at::Tensor* y, const at::Tensor* x, const at::Tensor* x_r, bool* done);

// Works through `n` elements from number `begin` on.
typedef void (*SpiketraceSweepBody)(const void* call, int64_t begin, int64_t n);

// Calls `body` on pieces of a dense tensor that it writes, from libtorch's threads where it pays.
char* spiketrace_sweep(const at::Tensor* output, int64_t grain, SpiketraceSweepBody body, const void* call);

// Loads libtorch_cuda, where it is to be found.
char* spiketrace_load_cuda();

// Runs the element-wise CUDA function `name` of `code`, compiled at its first call, on CUDA tensors.
char* spiketrace_launch(const char* code, const char* name, int32_t outputs, const SpiketraceList* in,
                        SpiketraceList* out);

// libtorch's automatic casts on this thread.
typedef struct SpiketraceAutocast {
  int8_t dtype;
  bool enabled, cache;
} SpiketraceAutocast;

// Sets them for the device of `like`; `state` is the new one, and becomes the former.
char* spiketrace_autocast(const at::Tensor* like, SpiketraceAutocast* state);

// State of the random generator of the device of `like`: appended to `out`, or set.
char* spiketrace_random_state(const at::Tensor* like, SpiketraceList* out);
char* spiketrace_set_random_state(const at::Tensor* like, const at::Tensor* state);

typedef struct SpiketraceSgd {
  double lr, momentum, dampening, weight_decay;
  bool nesterov;
} SpiketraceSgd;

typedef struct SpiketraceAdam {
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled;
} SpiketraceAdam;

// How a tensor's elements lie in memory.
typedef enum SpiketraceLayout : uint8_t {
  SPIKETRACE_DENSE,   // they fill a stretch of it
  SPIKETRACE_APART,   // each has a place of its own, with gaps between
  SPIKETRACE_SHARED,  // several have one place
  SPIKETRACE_OTHER,   // not by strides (sparse, for instance), or not within the tensor's storage
} SpiketraceLayout;

SpiketraceLayout spiketrace_layout(const at::Tensor* tensor) noexcept;
// Whether two dense tensors of one size, type and device hold the same element at each place of their own memory.
bool spiketrace_is_alike(const at::Tensor* a, const at::Tensor* b) noexcept;
// The same for two handles of one tensor, and for nothing else that lives.
const void* spiketrace_identity(const at::Tensor* tensor) noexcept;

// Steps of libtorch's fused optimizers: lists of one length, device and dtype each, whose tensors are alike; the
// buffers may be none. On the CPU for single and double precision: 2.13's SGD loses most moves in half precision.
char* spiketrace_fused_sgd(const SpiketraceList* params, const SpiketraceList* grads,
                           const SpiketraceList* buffers, const SpiketraceSgd* options, bool first);
char* spiketrace_fused_adam(const SpiketraceList* params, const SpiketraceList* grads,
                            const SpiketraceList* exp_avgs, const SpiketraceList* exp_avg_sqs,
                            const SpiketraceList* steps, const SpiketraceAdam* options);
// Makes the gradient undefined, which costs nothing, where zeroing writes it all.
char* spiketrace_forget_grad(const at::Tensor* tensor);

// A TorchScript module.
typedef struct SpiketraceScript SpiketraceScript;

// What its forward takes and returns.
typedef struct SpiketraceScriptForm {
  // Arguments without a default.
  int64_t inputs;
  // Floating-point tensors in its code, and their elements.
  int64_t constants, constant_values;
  // The module's name and forward's declaration, each a line; to be freed with spiketrace_text_free.
  char* text;
  bool takes_tensor, returns_tensor;
} SpiketraceScriptForm;

// Loads one onto the device of `like`.
char* spiketrace_script_load(const char* path, const at::Tensor* like, SpiketraceScript** script);
void spiketrace_script_free(SpiketraceScript* script) noexcept;
char* spiketrace_script_form(const SpiketraceScript* script, SpiketraceScriptForm* form);
// Its parameters, or its buffers, with their names, each a line; to be freed with spiketrace_text_free.
char* spiketrace_script_tensors(const SpiketraceScript* script, bool buffers, SpiketraceList* out, char** names);
char* spiketrace_script_train(SpiketraceScript* script, bool on);
char* spiketrace_script_forward(SpiketraceScript* script, const at::Tensor* x, SpiketraceList* out);
// The bytes of its file.
char* spiketrace_script_save(const SpiketraceScript* script, SpiketraceList* out);

void spiketrace_text_free(char* text) noexcept;

}  // extern "C"
