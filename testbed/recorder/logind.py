"""The part of systemd-logind that the kubelet's graceful node shutdown needs: SIGUSR1 shuts the machine down.

Prints "ready" when it owns its name on the system bus, and then the kubelet's requests. Needs Debian's python3-dbus
and python3-gi, and must run with the system's own Python.
"""
import os
import signal

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
# The kubelet changes logind's configuration if this is less than what its Pods may need.
MAX_DELAY_USEC = 600_000_000


class Logind(dbus.service.Object):
    @dbus.service.method(MANAGER, in_signature="ssss", out_signature="h")
    def Inhibit(self, what, who, why, mode):
        print("inhibit", what, who, mode, flush=True)
        reader, writer = os.pipe()
        GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, reader, GLib.IO_HUP, self.released)
        GLib.idle_add(lambda: os.close(writer))
        return dbus.types.UnixFd(writer)

    def released(self, fd, _condition):
        print("released", flush=True)
        os.close(fd)
        return False

    @dbus.service.signal(MANAGER, signature="b")
    def PrepareForShutdown(self, start):
        print("shutdown", start, flush=True)

    @dbus.service.method(dbus.PROPERTIES_IFACE, in_signature="ss", out_signature="v")
    def Get(self, _interface, name):
        if name == "InhibitDelayMaxUSec":
            return dbus.UInt64(MAX_DELAY_USEC)
        raise dbus.exceptions.DBusException("no such property: " + name)


dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
name = dbus.service.BusName(NAME, bus)
logind = Logind(bus, PATH)
GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGUSR1, lambda: logind.PrepareForShutdown(True) or True)
GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGUSR2, lambda: logind.PrepareForShutdown(False) or True)
print("ready", flush=True)
GLib.MainLoop().run()
