#include "seam.h"
#include "guarded.h"
#include "list.h"

#include <string>

#include <ATen/Context.h>
#include <c10/util/SmallVector.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace {

// libtorch's CUDA half: nothing of ours names a symbol of it, so that programs link without.
void* library = nullptr;

void load() {
  if (library) return;
#ifdef _WIN32
  library = reinterpret_cast<void*>(LoadLibraryA("torch_cuda.dll"));
  TORCH_CHECK(library, "torch_cuda.dll was not found");
#else
  library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  Dl_info here;
  // Beside libtorch_cpu.so, where the program's own search path does not lead.
  if (!library && dladdr(reinterpret_cast<void*>(&at::globalContext), &here) && here.dli_fname) {
    std::string path(here.dli_fname);
    library = dlopen((path.substr(0, path.rfind('/') + 1) + "libtorch_cuda.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
  TORCH_CHECK(library, dlerror());
#endif
}

// at::cuda::CompileAndLaunchKernel: libtorch's run-time compiled element-wise kernels.
using Launch = c10::SmallVector<at::Tensor> (*)(const std::string&, const std::string&, int,
                                                const c10::SmallVector<at::Tensor>&,
                                                const c10::SmallVector<at::Scalar>&, bool);

Launch launcher() {
#ifdef _WIN32
  return nullptr;
#else
  load();
  return reinterpret_cast<Launch>(dlsym(
      library,
      "_ZN2at4cuda22CompileAndLaunchKernelERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEES8_iRKN3c10"
      "11SmallVectorINS_6TensorELj6EEERKNSA_INS9_6ScalarELj1EEEb"));
#endif
}

}  // namespace

char* spiketrace_load_cuda() { return guarded(load); }

char* spiketrace_launch(const char* code, const char* name, int32_t outputs, const SpiketraceList* in,
                        SpiketraceList* out) {
  return guarded([&] {
    static const Launch launch = launcher();
    TORCH_CHECK(launch, "this libtorch has no run-time compiled kernels");
    const c10::SmallVector<at::Tensor> tensors(in->tensors.begin(), in->tensors.end());
    auto made = launch(code, name, outputs, tensors, {}, /*return_by_ref=*/outputs > 1);
    out->tensors.assign(made.begin(), made.end());
  });
}
