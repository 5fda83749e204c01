#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <sstream>

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/serialization/import.h>

struct SpiketraceScript {
  torch::jit::Module module;
};

// raw.rs asserts the same.
static_assert(sizeof(SpiketraceScriptForm) == 40, "four words and two bools");

namespace {

void count_constants(const torch::jit::Block* block, SpiketraceScriptForm* form) {
  for (const torch::jit::Node* node : block->nodes()) {
    for (const torch::jit::Block* inner : node->blocks()) count_constants(inner, form);
    if (node->kind() != c10::prim::Constant) continue;
    const auto value = torch::jit::toIValue(node->output());
    // Numbers by themselves are written as such by people, too.
    if (!value || !value->isTensor() || !value->toTensor().defined()) continue;
    const at::Tensor& tensor = value->toTensor();
    if (tensor.dim() == 0 || !tensor.is_floating_point()) continue;
    form->constants += 1;
    form->constant_values += tensor.numel();
  }
}

}  // namespace

char* spiketrace_script_load(const char* path, const at::Tensor* like, SpiketraceScript** script) {
  return guarded([&] { *script = new SpiketraceScript{torch::jit::load(path, like->device())}; });
}

void spiketrace_script_free(SpiketraceScript* script) noexcept { delete script; }

char* spiketrace_script_form(const SpiketraceScript* script, SpiketraceScriptForm* form) {
  return guarded([&] {
    const auto forward = script->module.find_method("forward");
    if (!forward) throw std::runtime_error("it has no method forward");
    const c10::FunctionSchema& schema = forward->function().getSchema();
    const auto& arguments = schema.arguments();  // self first
    const auto& returns = schema.returns();
    const auto& tensor = *c10::TensorType::get();
    for (size_t i = 1; i < arguments.size(); ++i) form->inputs += !arguments[i].default_value();
    form->takes_tensor = arguments.size() > 1 && tensor.isSubtypeOf(*arguments[1].type());
    form->returns_tensor = returns.size() == 1 && returns[0].type()->isSubtypeOf(tensor);
    const auto graph = forward->graph()->copy();
    torch::jit::Inline(*graph);
    count_constants(graph->block(), form);
    std::ostringstream text;
    text << script->module.type()->name()->name() << '\n';
    const char* comma = "";
    text << "forward(";
    for (size_t i = 1; i < arguments.size(); ++i, comma = ", ") {
      text << comma << arguments[i].type()->repr_str() << ' ' << arguments[i].name();
    }
    text << ") -> " << (returns.size() == 1 ? returns[0].type()->repr_str() : "several values");
    form->text = text_of(text.str().c_str());
  });
}

char* spiketrace_script_tensors(const SpiketraceScript* script, bool buffers, SpiketraceList* out, char** names) {
  return guarded([&] {
    std::string text;
    const auto add = [&](const auto& named) {
      for (const auto& entry : named) {
        out->tensors.push_back(entry.value);
        text += entry.name + '\n';
      }
    };
    if (buffers) {
      add(script->module.named_buffers());
    } else {
      add(script->module.named_parameters());
    }
    *names = text_of(text.c_str());
  });
}

char* spiketrace_script_train(SpiketraceScript* script, bool on) {
  return guarded([&] { script->module.train(on); });
}

char* spiketrace_script_forward(SpiketraceScript* script, const at::Tensor* x, SpiketraceList* out) {
  return guarded([&] { out->tensors.push_back(script->module.forward({*x}).toTensor()); });
}

char* spiketrace_script_save(const SpiketraceScript* script, SpiketraceList* out) {
  return guarded([&] {
    std::ostringstream file;
    script->module.save(file);
    const std::string bytes = file.str();
    at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
    std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
    out->tensors.push_back(std::move(tensor));
  });
}
