"""/extensions: what clients of before the microversions ask to learn what there is. Deprecated, and still asked."""

from typing import Any

from api_cell.errors import NotFound
from api_cell.http.call import Answer, Call

_UPDATED = "2014-12-03T00:00:00Z"
# OpenStack gives each the same one since extensions have none.
_NAMESPACE = "http://docs.openstack.org/compute/ext/fake_namespace/api/v2"
# Those of OpenStack's whose routes, actions or fields are here.
_SERVED = {
    "OS-DCF": "DiskConfig",
    "OS-EXT-AZ": "ExtendedAvailabilityZone",
    "OS-EXT-SRV-ATTR": "ExtendedServerAttributes",
    "OS-EXT-STS": "ExtendedStatus",
    "OS-FLV-DISABLED": "FlavorDisabled",
    "OS-FLV-EXT-DATA": "FlavorExtraData",
    "OS-SCH-HNT": "SchedulerHints",
    "OS-SRV-USG": "ServerUsage",
    "flavors": "Flavors",
    "ips": "Ips",
    "limits": "Limits",
    "os-admin-actions": "AdminActions",
    "os-admin-password": "AdminPassword",
    "os-availability-zone": "AvailabilityZone",
    "os-config-drive": "ConfigDrive",
    "os-console-output": "ConsoleOutput",
    "os-consoles": "Consoles",
    "os-create-backup": "CreateBackup",
    "os-evacuate": "Evacuate",
    "os-extended-volumes": "ExtendedVolumes",
    "os-flavor-access": "FlavorAccess",
    "os-flavor-extra-specs": "FlavorExtraSpecs",
    "os-flavor-manage": "FlavorManage",
    "os-flavor-rxtx": "FlavorRxtx",
    "os-instance-actions": "ServerActions",
    "os-keypairs": "Keypairs",
    "os-lock-server": "LockServer",
    "os-migrate-server": "MigrateServer",
    "os-multiple-create": "MultipleCreate",
    "os-pause-server": "PauseServer",
    "os-personality": "Personality",
    "os-quota-class-sets": "QuotaClasses",
    "os-quota-sets": "Quotas",
    "os-rescue": "Rescue",
    "os-server-diagnostics": "ServerDiagnostics",
    "os-simple-tenant-usage": "SimpleTenantUsage",
    "os-suspend-server": "SuspendServer",
    "os-used-limits": "UsedLimits",
    "os-user-data": "UserData",
    "os-volumes": "Volumes",
    "server-metadata": "ServerMetadata",
    "servers": "Servers",
    "versions": "Versions",
}


def _view(alias: str) -> dict[str, Any]:
    name = _SERVED[alias]
    described = {"description": f"{name} support.", "namespace": _NAMESPACE, "updated": _UPDATED, "links": []}
    return {"alias": alias, "name": name, **described}


def every(call: Call) -> Answer:
    return Answer(body={"extensions": [_view(alias) for alias in _SERVED]})


def one(call: Call) -> Answer:
    alias = call.params["alias"]
    if alias not in _SERVED:
        raise NotFound(f"There is no extension {alias[:80]}")
    return Answer(body={"extension": _view(alias)})
