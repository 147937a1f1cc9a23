"""How one thing is done on one XenServer pool. The compute cell's jobs call these functions from their threads.

Each may be called again after any interruption, by this daemon or another, and goes on where the last call stopped:
what was made is found again on the host by its name and tag. Sizes are bytes, MiB or GiB as their names say, times
seconds, hosts and VMs uuids. All raise Temporary (call again after `retry_after`), Permanent or Refusal, with texts a
tenant may read; those that take a journal also raise what journal.check() and journal.put() do.
"""

from xenapi_host.driver.build import Prepared, RunningFacts, prepare_build, start_build
from xenapi_host.driver.destroy import destroy
from xenapi_host.driver.measure import VmState, find, measure, power_states
from xenapi_host.driver.migrate import migrate, migrate_to_pool
from xenapi_host.driver.power import pause, reboot, resume, start, stop, suspend, unpause
from xenapi_host.driver.rebuild import rebuild
from xenapi_host.driver.rescue import rescue, unrescue
from xenapi_host.driver.resize import Resized, confirm_resize, resize, revert_resize
from xenapi_host.driver.snapshot import Uploaded, snapshot

__all__ = [
    "Prepared",
    "Resized",
    "RunningFacts",
    "Uploaded",
    "VmState",
    "confirm_resize",
    "destroy",
    "find",
    "measure",
    "migrate",
    "migrate_to_pool",
    "pause",
    "power_states",
    "prepare_build",
    "reboot",
    "rebuild",
    "rescue",
    "resize",
    "resume",
    "revert_resize",
    "snapshot",
    "start",
    "start_build",
    "stop",
    "suspend",
    "unpause",
    "unrescue",
]
