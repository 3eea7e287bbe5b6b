"""Importable names that run code or touch the system when a pickle calls them, and what they would do.

The list decides between a warning and an error only. Whatever is on no list is a warning, so that a name that is missing
here is still seen.
"""

from __future__ import annotations

from ckpt_rules_safety.known_globals import is_known

RUNS_COMMANDS = "runs commands"
RUNS_PYTHON = "runs Python code"
LOADS_MORE = "loads another pickle or archive"
TOUCHES_FILES = "reads or writes files"
USES_NETWORK = "uses the network"
REACHES = "reaches into the interpreter"

_MODULES = {
    RUNS_COMMANDS: (
        "os posix nt subprocess _posixsubprocess pty popen2 commands asyncio multiprocessing concurrent.futures "
        "distutils setuptools pip ensurepip venv webbrowser platform antigravity idlelib _aix_support _osx_support "
        "_pyrepl torch.utils.collect_env torch.utils.cpp_extension torch.utils.bottleneck torch.distributed.run "
        "torch.distributed.elastic torch.distributed.launcher torch.multiprocessing numpy.distutils numpy.f2py sched"
    ),
    RUNS_PYTHON: (
        "code codeop runpy timeit pdb bdb cProfile profile trace doctest pydoc pydoc_data lib2to3 unittest test "
        "imp importlib _frozen_importlib _frozen_importlib_external pkgutil zipimport marshal inspect dis ast site "
        "compileall py_compile this numpy.testing numpy.ma.testutils torch._dynamo torch._inductor torch.fx "
        "torch.jit torch.hub torch.package torch.testing torch.onnx torch.export torch._export torch.utils._config_module "
        "cloudpickle.cloudpickle sympy"
    ),
    LOADS_MORE: "pickle _pickle cPickle dill joblib shelve cloudpickle jsonpickle torch.serialization pandas.io.pickle",
    TOUCHES_FILES: (
        "shutil tempfile fileinput zipfile tarfile glob mmap logging linecache dbm sqlite3 _sqlite3 csv "
        "gzip bz2 lzma netrc mailbox mimetypes"
    ),
    USES_NETWORK: (
        "socket _socket ssl _ssl urllib urllib2 urllib3 http httplib requests httpx aiohttp ftplib smtplib poplib imaplib "
        "nntplib telnetlib xmlrpc socketserver asyncore asynchat paramiko select selectors wsgiref"
    ),
    REACHES: (
        "sys ctypes _ctypes cffi gc atexit faulthandler threading _thread resource sysconfig builtins.__dict__ operator "
        "_operator signal winreg msvcrt _winapi"
    ),
}
MODULES = {module: what for what, modules in _MODULES.items() for module in modules.split()}
"""What the names of a module do, by module; those of the modules below it as well."""

_NAMES = {
    RUNS_PYTHON: (
        "builtins.eval builtins.exec builtins.compile builtins.execfile builtins.apply builtins.__import__ "
        "builtins.reload builtins.breakpoint builtins.input builtins.map builtins.filter types.CodeType "
        "types.FunctionType types.LambdaType types.MethodType functools.reduce "
        "uuid._get_command_stdout uuid._popen numpy.testing._private.utils.runstring torch.load "
        "torch._jit_internal.get_torchscript_modifier"
    ),
    TOUCHES_FILES: (
        "builtins.open builtins.file io.open io.FileIO io.open_code _io.open _io.FileIO _io.open_code io.TextIOWrapper codecs.open "
        "numpy.fromfile numpy.memmap numpy.save numpy.savetxt numpy.savez numpy.genfromtxt numpy.loadtxt torch.save "
        "torch.from_file"
    ),
    LOADS_MORE: "numpy.load pandas.read_pickle numpy.lib.npyio.load numpy.lib._npyio_impl.load",
    REACHES: (
        "builtins.getattr.__call__ builtins.setattr builtins.delattr builtins.globals builtins.locals builtins.vars "
        "types.ModuleType"
    ),
}
NAMES = {name: what for what, names in _NAMES.items() for name in names.split()}
"""What single names do, by `module.name`."""

# Names that people give packages of their own: only the module itself is meant, not what lies below it.
_EXACT = frozenset(["ast", "code", "commands", "dis", "platform", "profile", "select", "site", "test", "this", "trace"])
_PARTS = frozenset(
    {"os", "posix", "nt", "sys", "subprocess", "builtins", "__builtins__", "importlib", "shutil", "socket", "ctypes"}
)
_CLASSES = {
    "Popen": RUNS_COMMANDS,
    "FileIO": TOUCHES_FILES,
    "FileHandler": TOUCHES_FILES,
    "CDLL": REACHES,
    "PyDLL": REACHES,
    "CodeType": RUNS_PYTHON,
    "FunctionType": RUNS_PYTHON,
    "LambdaType": RUNS_PYTHON,
    "Process": RUNS_COMMANDS,
    "Thread": RUNS_COMMANDS,
    "InteractiveConsole": RUNS_PYTHON,
    "InteractiveInterpreter": RUNS_PYTHON,
}


def danger(module: str, name: str) -> str | None:
    """What a name does that no checkpoint needs; None where it is not known to do anything.

    A dotted name reaches an attribute: `pathlib` with `os.system` is `os.system`, and any dunder on the way leads out.
    """
    return None if is_known(module, name) else listed_danger(module, name)


def listed_danger(module: str, name: str) -> str | None:
    """The same, of names that checkpoints are known to store as well."""
    first, *rest = name.split(".")
    if what := NAMES.get(f"{module}.{name}") or NAMES.get(f"{module}.{first}") or _of_module(module):
        return what
    if what := _CLASSES.get(name.rpartition(".")[2]):
        return what
    for part in (first, *rest):
        if part in _PARTS:
            return MODULES.get(part, REACHES)
    return REACHES if any(part.startswith("__") and part.endswith("__") for part in rest) else None


def _of_module(module: str) -> str | None:
    if module in MODULES:
        return MODULES[module]
    above = module.rpartition(".")[0]
    while above:
        if above in MODULES and above not in _EXACT:
            return MODULES[above]
        above = above.rpartition(".")[0]
    return None
