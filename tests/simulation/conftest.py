"""The embedded server of the contract tests, here as well."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "contract_conftest", Path(__file__).parents[1] / "contract" / "conftest.py"
)
_contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_contract)

_redis_process = _contract._redis_process
redis_server = _contract.redis_server
