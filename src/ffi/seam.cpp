#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <array>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace ag = torch::autograd;

struct SpiketraceContext {
  ag::AutogradContext* autograd;
  // The tensors that forward got: which inputs were defined.
  const std::vector<bool>* defined;
  // Forward runs with gradients off, so what they ask for is noted beforehand; null in backward.
  const std::vector<bool>* needed;
};

// raw.rs asserts the same.
static_assert(sizeof(SpiketraceCallbacks) == 3 * sizeof(void*), "three function pointers");

namespace {

// libtorch's Function::apply sees tensors only as single arguments, so there is one instance a count.
constexpr size_t kMaxInputs = 16;

// Owns the Rust value of one application; rides in the node's saved_data.
struct Call : torch::CustomClassHolder {
  Call(const SpiketraceCallbacks* callbacks, void* rust) : callbacks(callbacks), rust(rust) {}
  ~Call() override { callbacks->drop(rust); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  const SpiketraceCallbacks* callbacks;
  void* rust;
  std::vector<bool> defined;
  std::vector<bool> needed;
};
using CallPtr = c10::intrusive_ptr<Call>;

ag::variable_list run(int32_t (*callback)(void*, SpiketraceContext*, const SpiketraceList*, SpiketraceList*),
                      void* rust, SpiketraceContext ctx, ag::variable_list in) {
  SpiketraceList input{std::move(in), {}};
  SpiketraceList output;
  if (callback(rust, &ctx, &input, &output) != 0) throw std::runtime_error(output.error);
  return std::move(output.tensors);
}

struct RustFunction : ag::Function<RustFunction> {
  template <typename... Inputs>
  static ag::variable_list forward(ag::AutogradContext* ctx, const CallPtr& call, const Inputs&... inputs) {
    ctx->set_materialize_grads(false);
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return run(call->callbacks->forward, call->rust, {ctx, &call->defined, &call->needed},
               {inputs.value_or(at::Tensor())...});
  }

  static ag::variable_list backward(ag::AutogradContext* ctx, ag::variable_list grads) {
    auto call = c10::static_intrusive_pointer_cast<Call>(ctx->saved_data.at("call").toCapsule());
    auto out = run(call->callbacks->backward, call->rust, {ctx, &call->defined, nullptr}, std::move(grads));
    for (size_t i = 0; i < out.size(); ++i) {
      if (out[i].defined() && !call->defined.at(i)) {
        throw std::runtime_error("backward returned a gradient for input " + std::to_string(i) +
                                 ", which apply_optional() left out; return None for it");
      }
    }
    out.insert(out.begin(), at::Tensor());  // the place of `call` among forward's arguments
    return out;
  }
};

template <size_t... I>
ag::variable_list apply_to(const CallPtr& call, const ag::variable_list& in, std::index_sequence<I...>) {
  return RustFunction::apply(call, (in[I].defined() ? std::optional<at::Tensor>(in[I]) : std::nullopt)...);
}

template <size_t N>
ag::variable_list apply_count(const CallPtr& call, const ag::variable_list& in) {
  return apply_to(call, in, std::make_index_sequence<N>());
}

template <size_t... N>
ag::variable_list apply_any(const CallPtr& call, const ag::variable_list& in, std::index_sequence<N...>) {
  using Apply = ag::variable_list (*)(const CallPtr&, const ag::variable_list&);
  static constexpr std::array<Apply, sizeof...(N)> table{&apply_count<N + 1>...};
  return table.at(in.size() - 1)(call, in);
}

}  // namespace

SpiketraceList* spiketrace_list_new() noexcept { return new SpiketraceList(); }
void spiketrace_list_free(SpiketraceList* list) noexcept { delete list; }
size_t spiketrace_list_len(const SpiketraceList* list) noexcept { return list->tensors.size(); }

void spiketrace_list_push(SpiketraceList* list, const at::Tensor* tensor) noexcept {
  list->tensors.push_back(tensor ? *tensor : at::Tensor());
}

at::Tensor* spiketrace_list_get(const SpiketraceList* list, size_t i) noexcept {
  const auto& tensor = list->tensors[i];
  return tensor.defined() ? new at::Tensor(tensor) : nullptr;
}

void spiketrace_list_fail(SpiketraceList* list, const char* text, size_t len) noexcept {
  list->error.assign(text, len);
}

char* spiketrace_apply(const SpiketraceCallbacks* callbacks, void* rust, const SpiketraceList* in,
                       SpiketraceList* out) {
  return guarded([&] {
    auto call = c10::make_intrusive<Call>(callbacks, rust);
    if (in->tensors.empty() || in->tensors.size() > kMaxInputs) {
      throw std::runtime_error("a function takes 1 to " + std::to_string(kMaxInputs) + " tensors, got " +
                               std::to_string(in->tensors.size()));
    }
    const bool grad_enabled = at::GradMode::is_enabled();
    for (const auto& tensor : in->tensors) {
      call->defined.push_back(tensor.defined());
      call->needed.push_back(grad_enabled && tensor.defined() && tensor.requires_grad());
    }
    out->tensors = apply_any(call, in->tensors, std::make_index_sequence<kMaxInputs>());
  });
}

char* spiketrace_save_for_backward(SpiketraceContext* ctx, const SpiketraceList* tensors) {
  return guarded([&] { ctx->autograd->save_for_backward(tensors->tensors); });
}

char* spiketrace_saved_tensors(const SpiketraceContext* ctx, SpiketraceList* out) {
  return guarded([&] { out->tensors = ctx->autograd->get_saved_variables(); });
}

char* spiketrace_mark_non_differentiable(SpiketraceContext* ctx, const SpiketraceList* outputs) {
  return guarded([&] { ctx->autograd->mark_non_differentiable(outputs->tensors); });
}

char* spiketrace_needs_input_grad(const SpiketraceContext* ctx, size_t input, bool* needed) {
  return guarded([&] {
    if (ctx->needed) {
      *needed = ctx->needed->at(input);
      return;
    }
    // libtorch counts the edges of defined inputs only.
    size_t edge = 0;
    for (size_t i = 0; i < input; ++i) edge += ctx->defined->at(i);
    *needed = ctx->defined->at(input) && ctx->autograd->needs_input_grad(edge);
  });
}

char* spiketrace_backward(const at::Tensor* y, const at::Tensor* grad, bool keep_graph) {
  return guarded([&] { ag::backward({*y}, {*grad}, keep_graph); });
}

size_t spiketrace_handles(const at::Tensor* tensor) noexcept { return tensor->use_count(); }

size_t spiketrace_memory_handles(const at::Tensor* tensor) noexcept {
  // Memory that is not libtorch's cannot be resized, and its owner is not counted.
  return tensor->has_storage() && tensor->storage().resizable() ? tensor->storage().use_count() : 0;
}

void spiketrace_written(const at::Tensor* tensor) noexcept { tensor->unsafeGetTensorImpl()->bump_version(); }

void spiketrace_text_free(char* text) noexcept { std::free(text); }
