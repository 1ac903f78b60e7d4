"""What the entry point ``verl.plugins`` names: loading it installs the hooks.

verl loads entry points while it is itself half imported, and drops whatever they raise. So nothing
of verl is imported here; the hooks act when verl's own modules are, and raise from there.
"""

from . import hooks

hooks.install()
