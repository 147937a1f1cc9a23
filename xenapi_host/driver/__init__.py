"""How one thing is done on one XenServer pool. The compute cell's jobs call these functions from their threads.

Each may be called again after any interruption, by this daemon or another, and goes on where the last call stopped:
what was made is found again on the host by its name and tag. Sizes are bytes, MiB or GiB as their names say, times
seconds, hosts and VMs uuids. All raise Temporary (call again after `retry_after`), Permanent or Refusal, with texts a
tenant may read; those that take a journal also raise what journal.check() and journal.put() do.
"""

from xenapi_host.driver.agent import (
    Wishes,
    activate_system,
    agent_version,
    first_boot,
    inject_file,
    reset_network,
    set_password,
    update_agent,
)
from xenapi_host.driver.backup import BackedUp, backup
from xenapi_host.driver.build import Prepared, RunningFacts, prepare_build, start_build
from xenapi_host.driver.cache import clear_cache
from xenapi_host.driver.classic import ClassicSource, finish_classic, prepare_classic
from xenapi_host.driver.console import console_log, console_url
from xenapi_host.driver.destroy import destroy
from xenapi_host.driver.diagnostics import Diagnostics, diagnostics
from xenapi_host.driver.evacuate import evacuate
from xenapi_host.driver.host_snapshots import HostSnapshot, drop_host_snapshot, host_snapshots, take_host_snapshot
from xenapi_host.driver.leftovers import Swept, find_leftovers, tidy
from xenapi_host.driver.measure import VmState, find, measure, power_states
from xenapi_host.driver.migrate import migrate, migrate_to_pool
from xenapi_host.driver.plugins import plugins_wrong
from xenapi_host.driver.power import pause, reboot, resume, start, stop, suspend, unpause
from xenapi_host.driver.rebuild import rebuild
from xenapi_host.driver.replace import remove_copy, replace_lost, set_aside
from xenapi_host.driver.rescue import rescue, unrescue
from xenapi_host.driver.resize import Resized, confirm_resize, resize, revert_resize
from xenapi_host.driver.shares import set_shares
from xenapi_host.driver.snapshot import Uploaded, snapshot, undo_snapshot
from xenapi_host.driver.usage import disk_usage
from xenapi_host.driver.vms import BelongsToAnother, rename
from xenapi_host.driver.volumes import (
    Place,
    PoolVolume,
    VolumeFacts,
    allow_volume,
    attach_volume,
    detach_volume,
    find_volume,
    volumes_of_pool,
    withdraw_volume,
)
from xenapi_host.driver.watch import Foreign, Looked, look
from xenapi_host.driver.xenstore import put_metadata, put_network, read_live, write_live

__all__ = [
    "BackedUp",
    "BelongsToAnother",
    "ClassicSource",
    "Diagnostics",
    "Foreign",
    "HostSnapshot",
    "Looked",
    "Place",
    "PoolVolume",
    "Prepared",
    "Resized",
    "RunningFacts",
    "Swept",
    "Uploaded",
    "VmState",
    "VolumeFacts",
    "Wishes",
    "activate_system",
    "agent_version",
    "allow_volume",
    "attach_volume",
    "backup",
    "clear_cache",
    "confirm_resize",
    "console_log",
    "console_url",
    "destroy",
    "detach_volume",
    "diagnostics",
    "disk_usage",
    "drop_host_snapshot",
    "evacuate",
    "find",
    "find_leftovers",
    "find_volume",
    "finish_classic",
    "first_boot",
    "host_snapshots",
    "inject_file",
    "look",
    "measure",
    "migrate",
    "migrate_to_pool",
    "pause",
    "plugins_wrong",
    "power_states",
    "prepare_build",
    "prepare_classic",
    "put_metadata",
    "put_network",
    "read_live",
    "reboot",
    "rebuild",
    "remove_copy",
    "rename",
    "replace_lost",
    "rescue",
    "reset_network",
    "resize",
    "resume",
    "revert_resize",
    "set_aside",
    "set_password",
    "set_shares",
    "snapshot",
    "start",
    "start_build",
    "stop",
    "suspend",
    "take_host_snapshot",
    "tidy",
    "undo_snapshot",
    "unpause",
    "unrescue",
    "update_agent",
    "volumes_of_pool",
    "withdraw_volume",
    "write_live",
]
