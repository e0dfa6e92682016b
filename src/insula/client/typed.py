"""The daemon's properties with their types, for type checkers alone: nothing here is ever run.

Qubes and labels are set by object or by name. What a property means: Holder.help().
"""

from typing import Any, Generic, TypeVar, overload

from insula.client.qube import Qube

Got_co = TypeVar("Got_co", covariant=True)
Given_contra = TypeVar("Given_contra", contravariant=True)


class Property(Generic[Got_co, Given_contra]):
    """A property: what reading it gives, and what it can be set to."""

    @overload
    def __get__(self, holder: None, owner: type) -> "Property[Got_co, Given_contra]": ...
    @overload
    def __get__(self, holder: object, owner: type) -> Got_co: ...
    def __get__(self, holder: object | None, owner: type) -> Any:
        raise NotImplementedError

    def __set__(self, holder: object, value: Given_contra) -> None: ...

    def __delete__(self, holder: object) -> None: ...


Flag = Property[bool, bool]
Number = Property[int, int]
Text = Property[str, str]
Reference = Property[Qube | None, Qube | str | None]


class QubeProperties:
    """Properties of qubes; a class of qubes has only some of them, the rest is AttributeError."""

    appvm_default_bootmode = Text()
    audiovm = Reference()
    auto_cleanup = Flag()
    autostart = Flag()
    backup_timestamp = Number()
    bootmode = Text()
    debug = Flag()
    default_dispvm = Reference()
    default_user = Text()
    devices_denied = Text()
    dispid = Number()
    dns = Text()
    gateway = Text()
    gateway6 = Text()
    guivm = Reference()
    icon = Text()
    include_in_backups = Flag()
    installed_by_rpm = Flag()
    ip = Text()
    ip6 = Text()
    is_preload = Flag()
    kernel = Text()
    kernelopts = Text()
    keyboard_layout = Text()
    label = Text()
    mac = Text()
    management_dispvm = Reference()
    maxmem = Number()
    memory = Number()
    netvm = Reference()
    provides_network = Flag()
    qid = Number()
    qrexec_timeout = Number()
    relayvm = Reference()
    remote_name = Text()
    shutdown_timeout = Number()
    start_mode = Text()
    start_time = Text()
    stubdom_mem = Number()
    stubdom_uuid = Text()
    stubdom_xid = Number()
    template = Reference()
    template_for_dispvms = Flag()
    transport_rpc = Text()
    updateable = Flag()
    vcpus = Number()
    virt_mode = Text()
    visible_gateway = Text()
    visible_gateway6 = Text()
    visible_ip = Text()
    visible_ip6 = Text()
    visible_netmask = Text()
    xid = Number()


class SystemProperties:
    """Properties of the system."""

    check_updates_vm = Flag()
    clockvm = Reference()
    default_audiovm = Reference()
    default_dispvm = Reference()
    default_guivm = Reference()
    default_kernel = Text()
    default_netvm = Reference()
    default_pool = Text()
    default_pool_kernel = Text()
    default_pool_private = Text()
    default_pool_root = Text()
    default_pool_volatile = Text()
    default_qrexec_timeout = Number()
    default_shutdown_timeout = Number()
    default_template = Reference()
    management_dispvm = Reference()
    stats_interval = Number()
    updatevm = Reference()
