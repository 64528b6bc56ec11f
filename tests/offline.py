"""Run a command without a network: python tests/offline.py COMMAND ...

On Linux the command runs in an empty network namespace with only the loopback interface up, so that no library, compiled or not, can reach
out. Where the system allows none, it says so and runs the command as it is. The course's folders are a fresh temporary folder.
"""
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile


def loopback_up():
    "Bring the interface `lo` of this namespace up, as `ip link set lo up` does"
    import fcntl
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack('16sh14x', b'lo', 0)
        flags = struct.unpack('16sh14x', fcntl.ioctl(s, siocgifflags, request))[1]
        fcntl.ioctl(s, siocsifflags, struct.pack('16sh14x', b'lo', flags | iff_up))


def can_isolate():
    "Whether this system lets us make an empty network namespace"
    if not sys.platform.startswith('linux') or not shutil.which('unshare'): return False
    return subprocess.run(['unshare', '-rn', 'true'], capture_output=True).returncode == 0


def main(argv):
    if argv[:1] == ['--inside']:
        loopback_up()
        os.execvp(argv[1], argv[1:])
    env = {k: v for k, v in os.environ.items() if k not in ('TOPDOWN_DATA', 'TOPDOWN_TRACK', 'TOPDOWN_RUN_ID')}
    with tempfile.TemporaryDirectory(prefix='topdown-', ignore_cleanup_errors=True) as home:
        env |= {'TOPDOWN_HOME': home, 'MPLBACKEND': 'agg'}
        if can_isolate():
            print('offline: in an empty network namespace, loopback only', flush=True)
            command, env['TOPDOWN_OFFLINE'] = ['unshare', '-rn', sys.executable, os.path.abspath(__file__), '--inside', *argv], '1'
        else:
            print('offline: NOT isolated, this system allows no network namespace; the network stays reachable', flush=True)
            command = argv
        return subprocess.run(command, env=env).returncode


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
