// What CUDA C kernels need of a host compiler. One block runs at a time, so static storage is a block's shared memory;
// threads run one after another, or, where a kernel has barriers, as fibers that switch at each barrier.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>
#undef INFINITY  // NVRTC has no macros of <math.h>
#undef NAN

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static  // the sanitizer lays out its own red zones
#else
#define __shared__ static __attribute__((section("block_memory")))
#endif

struct uint3 {
  unsigned x, y, z;
};
inline uint3 threadIdx, blockIdx, blockDim, gridDim;
using std::max;
using std::min;

namespace emulator {
enum { RUNNING = 0, FINISHED = -1 };  // else: the line of the barrier where a fiber waits
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  uint3 index;
  int at;
};
const int STACK = 1 << 16;
inline char error[200];  // the first fault of a launch
inline unsigned epoch;   // accesses of one block in different epochs have a barrier between them
inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline int current = -1;
inline std::function<void()> body;

template <class... T>
void fail(const char* what, T... values) {
  if (!*error) snprintf(error, sizeof error, what, values...);
}

inline void wait(int line) {
  if (current < 0) return fail("barrier in line %d of a kernel that is run without fibers", line);
  Fiber& me = fibers[current];
  me.at = line;
  swapcontext(&me.context, &scheduler);
}

inline void fiber_main() {
  body();
  wait(FINISHED);
}

inline void run_fibers(const std::vector<int>& order) {
  fibers.resize(std::max(fibers.size(), order.size()));
  for (int i : order) {
    Fiber& f = fibers[i];
    if (!f.stack) f.stack.reset(new char[STACK]);
    f.index = {i % blockDim.x, i / blockDim.x, 0};
    f.at = RUNNING;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK;
    makecontext(&f.context, fiber_main, 0);
  }
  for (int at = RUNNING; at != FINISHED; ++epoch) {
    for (int i : order) {
      current = i;
      threadIdx = fibers[i].index;
      fibers[i].at = RUNNING;
      swapcontext(&scheduler, &fibers[i].context);
    }
    current = -1;
    at = fibers[0].at;
    for (int i : order)
      if (fibers[i].at != at)
        return fail("divergent barrier: one thread is at line %d, another at %d (-1: has returned)", at, fibers[i].at);
  }
}

#ifdef __SANITIZE_ADDRESS__
inline void poison_shared() {}
#else
extern "C" __attribute__((weak, visibility("hidden"))) char __start_block_memory[], __stop_block_memory[];
inline void poison_shared() {  // NaN, so that a block cannot read what the one before it left
  if (__start_block_memory) memset(__start_block_memory, 0xff, __stop_block_memory - __start_block_memory);
}
#endif

// order 0: blocks and threads in ascending order; else in a random one of that seed
template <class Body>
const char* launch(const unsigned* grid, const unsigned* block, unsigned order, bool barriers, Body thread) {
  gridDim = {grid[0], grid[1], 1};
  blockDim = {block[0], block[1], 1};
  std::vector<int> blocks(grid[0] * grid[1]), threads(block[0] * block[1]);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::iota(threads.begin(), threads.end(), 0);
  std::mt19937 random(order);
  if (order) std::shuffle(blocks.begin(), blocks.end(), random);
  if (barriers) body = thread;
  *error = 0;
  for (int b : blocks) {
    blockIdx = {b % grid[0], b / grid[0], 0};
    if (order) std::shuffle(threads.begin(), threads.end(), random);
    ++epoch;
    poison_shared();
    if (barriers) {
      run_fibers(threads);
    } else {
      for (int t : threads) {
        threadIdx = {t % block[0], t / block[0], 0};
        thread();
      }
    }
    if (*error) break;
  }
  return *error ? error : nullptr;
}
}  // namespace emulator

#define __syncthreads() emulator::wait(__LINE__)
