// The PTX instructions that NVRTC makes of our kernels, as C++ functions: add.s32 is add_<s32>. One that is missing here
// does not compile. Every access to memory is checked: bounds, alignment, memory that nobody wrote, and races.
#pragma once
#include <sys/mman.h>

#include <type_traits>
#include <unordered_map>

#include "shim.h"

using pred = bool;
using u8 = uint8_t;
using s8 = int8_t;
using u16 = uint16_t;
using s16 = int16_t;
using b16 = uint16_t;
using u32 = uint32_t;
using s32 = int32_t;
using b32 = uint32_t;
using u64 = uint64_t;
using s64 = int64_t;
using b64 = uint64_t;
using f32 = float;
using f64 = double;

// -- memory ----------------------------------------------------------------------------------------------------------

// Shared memory stands below 4 GiB: PTX of CUDA 13.5 addresses it by 32 bits.
static u8* low_memory(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<u8*>(memory);
}

struct Range {  // an array that the kernel may use; written: one byte for each of its bytes
  u64 begin, bytes, written;
};
static std::vector<Range> ranges;

// The last write and the last reads of an address. Two accesses, one of them a write, race if they are of different
// blocks, or of different threads of a block with no barrier between them.
struct Cell {
  int write_block = NONE, write_thread, read_block = NONE, read_thread;
  unsigned write_epoch, read_epoch;
  enum { NONE = -1, MANY = -2 };
};
static std::unordered_map<u64, Cell> cells[2];  // of global memory, of shared memory

extern "C" __attribute__((visibility("default"))) void set_ranges(const Range* list, int count) {
  ranges.assign(list, list + count);
  for (auto& c : cells) c.clear();
}

static bool conflict(bool shared, int block, int thread, unsigned epoch, int me_block, int me_thread) {
  if (block == Cell::NONE) return false;
  if (block != me_block) return !shared;  // a block's shared memory is its own
  return epoch == emulator::epoch && thread != me_thread;
}

static bool race(u64 address, bool write, bool shared) {
  int block = blockIdx.x + blockIdx.y * gridDim.x, thread = threadIdx.x + threadIdx.y * blockDim.x;
  Cell& c = cells[shared][address];
  bool found = conflict(shared, c.write_block, c.write_thread, c.write_epoch, block, thread);
  if (write) {
    found |= conflict(shared, c.read_block, c.read_thread, c.read_epoch, block, thread);
    c.write_block = block, c.write_thread = thread, c.write_epoch = emulator::epoch;
  } else {
    bool again = c.read_block == block && c.read_epoch == emulator::epoch;
    c.read_thread = again && c.read_thread != thread ? Cell::MANY : thread;
    c.read_block = shared || c.read_block == Cell::NONE || c.read_block == block ? block : Cell::MANY;
    c.read_epoch = emulator::epoch;
  }
  return found;
}

static u8* written(u64 address, unsigned bytes) {
  for (Range& r : ranges)
    if (address >= r.begin && address + bytes <= r.begin + r.bytes) return (u8*)r.written + (address - r.begin);
  return nullptr;
}

static void report(const char* what, bool write, bool shared) {
  emulator::fail("%s: a %s of %s memory by thread (%u, %u) of block (%u, %u)", what, write ? "write" : "read",
                 shared ? "shared" : "global", threadIdx.x, threadIdx.y, blockIdx.x, blockIdx.y);
}

template <class T>
T load(u64 a, bool shared) {
  const u8* w = written(a, sizeof(T));
  if (!w) return report("out of bounds", false, shared), T();
  if (a % sizeof(T)) report("misaligned", false, shared);
  int block = blockIdx.x + blockIdx.y * gridDim.x;
  if (shared ? cells[1][a].write_block != block : std::count(w, w + sizeof(T), 1) < (int)sizeof(T))
    report("uninitialised", false, shared);
  if (race(a, false, shared)) report("race", false, shared);
  return *(T*)a;
}

template <class T>
void store(u64 a, T v, bool shared) {
  u8* w = written(a, sizeof(T));
  if (!w) return report("out of bounds", true, shared);
  if (a % sizeof(T)) report("misaligned", true, shared);
  if (race(a, true, shared)) report("race", true, shared);
  memset(w, 1, sizeof(T));
  *(T*)a = v;
}

// clang-format off
#define OP(name, ...) template <class T> T name(__VA_ARGS__)
OP(ld_param_, const void* p) { return *(const T*)p; }
OP(ld_global_, u64 a) { return load<T>(a, false); }
OP(ld_global_nc_, u64 a) { return load<T>(a, false); }
OP(ld_shared_, u64 a) { return load<T>(a, true); }
template <class T> void st_global_(u64 a, T v) { store<T>(a, v, false); }
template <class T> void st_shared_(u64 a, T v) { store<T>(a, v, true); }
OP(cvta_to_global_, T a) { return a; }

// -- arithmetic: integers wrap around (-fwrapv) ------------------------------------------------------------------------

template <class T> using Wide = std::conditional_t<sizeof(T) == 8, __int128, std::conditional_t<std::is_signed_v<T>, s64, u64>>;
OP(mov_, T a) { return a; }
OP(add_, T a, T b) { return a + b; }
OP(sub_, T a, T b) { return a - b; }
OP(add_rn_, T a, T b) { return a + b; }
OP(sub_rn_, T a, T b) { return a - b; }
OP(mul_, T a, T b) { return a * b; }
OP(mul_rn_, T a, T b) { return a * b; }
OP(mul_lo_, T a, T b) { return a * b; }
OP(mul_hi_, T a, T b) { return (Wide<T>)a * b >> 8 * sizeof(T); }
template <class T> Wide<T> mul_wide_(T a, T b) { return (Wide<T>)a * b; }
OP(mad_lo_, T a, T b, T c) { return a * b + c; }
OP(fma_rn_, T a, T b, T c) { return std::fma(a, b, c); }
OP(fma_rm_, T a, T b, T c) {  // rounds down; the double is exact where the compiler uses this, in exp
  double v = (double)a * b + c; T r = v; return r > v ? std::nextafter(r, (T)-HUGE_VAL) : r; }
OP(div_, T a, T b) { if (!b) emulator::fail("division by zero"); return b ? a / b : 0; }
OP(rem_, T a, T b) { if (!b) emulator::fail("remainder of a division by zero"); return b ? a % b : 0; }
OP(div_rn_, T a, T b) { return a / b; }
OP(rcp_rn_, T a) { return 1 / a; }
OP(rcp_approx_ftz_, T a) { return 1 / a; }
OP(sqrt_rn_, T a) { return std::sqrt(a); }
OP(ex2_approx_ftz_, T a) { return std::exp2(a); }
OP(lg2_approx_ftz_, T a) { return std::log2(a); }
OP(neg_, T a) { return -a; }
OP(abs_, T a) { return std::abs(a); }
OP(min_, T a, T b) { if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b); else return std::min(a, b); }
OP(max_, T a, T b) { if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b); else return std::max(a, b); }
OP(and_, T a, T b) { return a & b; }
OP(or_, T a, T b) { return a | b; }
OP(xor_, T a, T b) { return a ^ b; }
OP(not_, T a) { if constexpr (std::is_same_v<T, bool>) return !a; else return ~a; }
OP(shl_, T a, u32 n) { return n < 8 * sizeof(T) ? a << n : 0; }
OP(shr_, T a, u32 n) { return a >> std::min<u32>(n, 8 * sizeof(T) - 1) >> (n >= 8 * sizeof(T)); }
OP(selp_, T a, T b, pred p) { return p ? a : b; }

// -- comparisons: a trailing u is also true for NaN -----------------------------------------------------------------------

#define COMPARE(name, test) template <class T> pred setp_##name##_(T a, T b) { return test; }
COMPARE(eq, a == b) COMPARE(ne, a < b || a > b) COMPARE(lt, a < b) COMPARE(le, a <= b) COMPARE(gt, a > b) COMPARE(ge, a >= b)
COMPARE(equ, !(a < b || a > b)) COMPARE(neu, a != b) COMPARE(ltu, !(a >= b)) COMPARE(leu, !(a > b))
COMPARE(gtu, !(a <= b)) COMPARE(geu, !(a < b)) COMPARE(nan, a != a || b != b) COMPARE(num, a == a && b == b)

// -- conversions ---------------------------------------------------------------------------------------------------------

#define CONVERT(name, value) template <class D, class S> D name(S a) { return value; }
CONVERT(cvt_, (D)a) CONVERT(cvt_rn_, (D)a) CONVERT(cvt_rzi_, (D)a)
CONVERT(cvt_sat_, a > 0 ? a < 1 ? a : 1 : 0)
// clang-format on

template <class D, class S>
void copy_bits(D& d, S s) {  // mov.b32 and mov.b64 between any two registers
  if constexpr (std::is_floating_point_v<D> == std::is_floating_point_v<S>) {
    d = s;
  } else if constexpr (std::is_floating_point_v<D>) {
    std::conditional_t<sizeof(D) == 4, u32, u64> v = s;
    memcpy(&d, &v, sizeof d);
  } else {
    memcpy(&d, &s, sizeof d);
  }
}
template <class S>
void unpack(b32& low, b32& high, S s) {
  u64 v;
  copy_bits(v, s);
  low = v, high = v >> 32;
}
static u64 pack(b32 low, b32 high) { return low | (u64)high << 32; }
template <class T>
T number(u64 bits) {
  T v;
  memcpy(&v, &bits, sizeof v);
  return v;
}
