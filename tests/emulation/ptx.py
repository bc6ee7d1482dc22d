"""PTX, as NVRTC makes it of kernels.cu, to C++: what the real compiler made of the kernels, run on the CPU.

Each instruction becomes a call of the function of ptx.h with its name, each register a variable.
"""

import re

from .host import KernelError, launcher

TYPES = {k + n for k in ("u", "s", "b") for n in ("8", "16", "32", "64")} | {"f32", "f64", "pred"}
REGISTERS = {"p": "pred", "rs": "u16", "r": "u32", "rd": "u64", "f": "f32", "fd": "f64"}
SPECIAL = {"tid": "threadIdx", "ntid": "blockDim", "ctaid": "blockIdx", "nctaid": "gridDim"}


def translate(ptx, signatures):
    """C++ with a launcher for each kernel; `signatures` (from the source) say how wide its parameters must be."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    declared = re.findall(r"\.shared \.align \d+ \.[a-z](\d+) (\w+)(?:\[(\d+)\])?;", ptx)
    shared = {name: int(bits) // 8 * int(count or 1) for bits, name, count in declared}
    out = ['#include "ptx.h"']
    out += [f"static u8* const {s} = low_memory({n}); static u8 written_{s}[{n}];" for s, n in shared.items()]
    found = re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)[^{]*\{(.*?)\n\}", ptx, re.S)
    if {name for name, _, _ in found} != set(signatures):
        raise KernelError(f"PTX has the kernels {[name for name, _, _ in found]}, the source {list(signatures)}")
    for name, parameters, body in found:
        types = re.findall(r"\.param \.(\w+)", parameters)
        widths = [8 if p.pointer else p.dtype.itemsize for p in signatures[name]]
        if [int(t[1:]) // 8 for t in types] != widths:
            raise KernelError(f"{name}: the parameters are {types} in PTX, but {widths} bytes wide in the source")
        out.append(_kernel(name, body, [s for s in shared if s in body], shared))
    return "\n".join(out)


def _kernel(name, body, used, shared):
    """One kernel as a function of its arguments' addresses, and its launcher."""
    registers = [f"{REGISTERS[kind]} {kind}[{n}];" for kind, n in re.findall(r"\.reg \.\w+\s+%(\w+?)<(\d+)>", body)]
    lines = [f"static void kernel_{name}(void** arguments) {{", *registers, "b32 temp;"]
    for number, line in enumerate(body.splitlines()):
        line = line.strip().rstrip(";")
        if line.endswith(":"):
            lines.append(_label(line[:-1]) + ":;")
        elif line and line not in "{}" and not line.startswith("."):
            lines.append(_instruction(line, number))
    ranges = "".join(f"ranges.push_back({{(u64){s}, {shared[s]}, (u64)written_{s}}}); " for s in used)
    call = f"kernel_{name}(arguments);"
    return "\n".join([*lines, "}", launcher(name, call, "bar.sync" in body, ranges)])


def _instruction(line, number):
    guard, line = re.fullmatch(r"(@!?%p\d+)?\s*(.*)", line).groups()
    before = f"if ({guard[1:].replace('%p', 'p[')}]) " if guard else ""
    mnemonic, _, rest = line.partition(" ")
    operands = [o.strip() for o in re.findall(r"\{[^}]*\}|\[[^]]*\]|[^,\s][^,]*", rest)]
    words = mnemonic.split(".")
    types = [w for w in words if w in TYPES]
    function = "_".join(w for w in words if w not in TYPES) + f"_<{', '.join(types)}>"
    if words[0] == "bra":
        return f"{before}goto {_label(operands[0])};"
    if mnemonic == "ret":
        return f"{before}return;"
    if mnemonic == "bar.sync":
        return f"{before}emulator::wait({number + 1});"
    if words[0] in ("ld", "st") and "{" in rest:  # a vector: element by element
        return before + _vector(words, types[0], operands)
    values = [_operand(o) for o in operands]
    if mnemonic in ("mov.b32", "mov.b64"):
        if operands[0].startswith("{"):
            return f"{before}unpack({values[0]}, {values[1]});"
        source = f"pack({values[1]})" if operands[1].startswith("{") else values[1]
        return f"{before}copy_bits({values[0]}, {source});"
    if words[0] == "st":
        return f"{before}{function}({', '.join(values)});"
    return f"{before}{values[0]} = {function}({', '.join(values[1:])});"


def _vector(words, kind, operands):
    store = words[0] == "st"
    registers, address = (operands[1], operands[0]) if store else operands
    function = f"{words[0]}_{words[1]}{'_nc' if 'nc' in words else ''}_<{kind}>"
    parts = []
    for i, register in enumerate(registers.strip("{}").split(",")):
        place, value = f"{_operand(address)} + {i} * sizeof({kind})", _operand(register.strip())
        parts.append(f"{function}({place}, {value});" if store else f"{value} = {function}({place});")
    return f"{{ {' '.join(parts)} }}"


def _operand(text):
    """A register, a number, an address or a list of those, in C++."""
    if text.startswith("{"):
        return ", ".join(_operand(o.strip()) for o in text[1:-1].split(","))
    if text.startswith("["):
        if m := re.fullmatch(r"\[\w+_param_(\d+)\]", text):
            return f"arguments[{m[1]}]"
        base, _, offset = text[1:-1].partition("+")
        return f"{_operand(base)} + {offset or 0}"
    if text == "%temp":
        return "temp"
    if m := re.fullmatch(r"%(\w+)\.([xyz])", text):
        return f"{SPECIAL[m[1]]}.{m[2]}"
    if m := re.fullmatch(r"%(p|rs|rd|r|fd|f)(\d+)", text):
        return f"{m[1]}[{m[2]}]"
    if m := re.fullmatch(r"0([fd])([0-9A-F]+)", text):
        return f"number<{REGISTERS[m[1] if m[1] == 'f' else 'fd']}>(0x{m[2]}ull)"
    if re.fullmatch(r"-?\d+", text):
        return f"{text}ll" if int(text) < 2**63 else f"{text}ull"
    if re.fullmatch(r"_Z\w+|\w+", text):
        return f"(u64){text}"
    raise KernelError(f"PTX operand {text} is not supported")


def _label(text):
    return text.strip().lstrip("$")
