"""Clients for a server on this machine, as light as possible: one thread, plain sockets, connections that stay open

python benchmarks/load.py PORT CLIENTS REQUESTS PHOTO ...   prints one line of JSON: seconds, statuses, milliseconds of each request
"""
import json
import selectors
import socket
import sys
import time
from collections import Counter
from pathlib import Path


def request(photo):
    "The bytes of one request"
    return b'POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n' % len(photo) + photo


def length(data):
    "How long the reply that begins with `data` is in all; 0 if its head is not complete"
    end = data.find(b'\r\n\r\n')
    if end < 0: return 0
    at = data.lower().find(b'content-length:', 0, end)
    return end + 4 + int(data[at + 15:data.index(b'\r\n', at)])


def run(port, clients, n, requests):
    "Send n requests over so many connections, each one after the reply to the last; nothing is sent twice"
    watch, todo, done, ms, statuses = selectors.DefaultSelector(), iter(range(n)), 0, [], Counter()
    sockets = [socket.create_connection(('127.0.0.1', port)) for _ in range(min(clients, n))]
    def send(s):
        i = next(todo, None)
        if i is None: return
        state[s][:] = [time.perf_counter(), b'', 0]
        s.sendall(requests[i % len(requests)])
    state = {s: [0, b'', 0] for s in sockets}
    start = time.perf_counter()
    for s in sockets:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        watch.register(s, selectors.EVENT_READ)
        send(s)
    while done < n:
        found = watch.select(60)
        if not found: raise SystemExit(f'no reply for a minute; {done} of {n} requests are done')
        for key, _ in found:
            s = key.fileobj
            piece = s.recv(65536)
            if not piece: raise SystemExit(f'the server hung up; {done} of {n} requests are done')
            mine = state[s]
            mine[1] += piece
            mine[2] = mine[2] or length(mine[1])
            if not mine[2] or len(mine[1]) < mine[2]: continue
            ms.append(1000*(time.perf_counter() - mine[0]))
            statuses[int(mine[1][9:12])] += 1
            done += 1
            send(s)
    seconds = time.perf_counter() - start
    for s in sockets: s.close()
    return dict(seconds=seconds, statuses=statuses, ms=[round(o, 2) for o in ms])


if __name__ == '__main__':
    port, clients, n, *photos = sys.argv[1:]
    print(json.dumps(run(int(port), int(clients), int(n), [request(Path(p).read_bytes()) for p in photos])))
