"""LLVM, for the CPU that this runs on: of a module of `vectors` it makes an object file, or a function to be called."""

import ctypes
from collections.abc import Callable

from llvmlite import binding, ir

from perceiver_ar.kernels.vectors import FEATURES


def _machine() -> binding.TargetMachine:
    """LLVM for this CPU, making code that may lie anywhere in memory."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=FEATURES.flatten(), opt=3, codemodel="large", jit=True
    )


def _improved(module: ir.Module, machine: binding.TargetMachine) -> binding.ModuleRef:
    """The module as LLVM's passes leave it, which keep the loops as they are written."""
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    options = binding.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.loop_unrolling = options.slp_vectorization = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return parsed


def object_code(module: ir.Module) -> bytes:
    """An object file for this CPU."""
    machine = _machine()
    return machine.emit_object(_improved(module, machine))


def compiled(module: ir.Module, name: str, outside: dict[str, int]) -> Callable[[int], int]:
    """The function of a word that has this name; what it finds `outside` lies at these addresses."""
    machine = _machine()
    for symbol, address in outside.items():
        binding.add_symbol(symbol, address)
    engine = binding.create_mcjit_compiler(_improved(module, machine), machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(engine.get_function_address(name))
    function.engine = engine  # type: ignore[attr-defined]  # which goes when the function goes
    return function
