"""A small server on this machine that can misbehave in every way that a download must survive"""
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1' # chunks need it

    def do_GET(self):
        self.close_connection = True
        s = self.server.state
        s.asked.append(dict(self.headers))
        if self.path not in s.files: return self.reply(404, b'nothing here')
        if s.statuses: return self.reply(s.statuses.pop(0), b'not now')
        body, start, code = s.files[self.path], 0, 200
        wanted, condition = self.headers.get('Range'), self.headers.get('If-Range')
        if wanted and s.ranges and condition in (None, s.etag, s.date):
            start, code = int(wanted[6:-1]), 206
            if start >= len(body): return self.reply(416, b'', {'Content-Range': f'bytes */{len(body)}'})
            start += s.shift
        self.reply(code, body[start:], {'Content-Range': f'bytes {start}-{len(body) - 1}/{len(body)}'} if code == 206 else {})

    def reply(self, code, body, headers=()):
        s = self.server.state
        self.send_response(code)
        marks = {'ETag': s.etag, 'Last-Modified': s.date, 'Connection': 'close'}
        if s.lengths: marks['Content-Length'] = str(len(body))
        if s.chunked: marks['Transfer-Encoding'] = 'chunked'
        for key, value in (marks | dict(headers) | s.headers).items():
            if value: self.send_header(key, value)
        self.end_headers()
        whole = not s.breaks
        sent = body if whole else body[:s.breaks.pop(0)]
        step = s.step or max(1, len(sent))
        for i in range(0, len(sent), step):
            piece = sent[i:i + step]
            self.wfile.write(b'%x\r\n%s\r\n' % (len(piece), piece) if s.chunked else piece)
            self.wfile.flush()
            time.sleep(s.pause)
        if s.chunked and whole: self.wfile.write(b'0\r\n\r\n')
        if s.hang: s.release.wait(20)

    def log_message(self, *args): pass


class Server:
    "Serves `files`; what it does wrong stands in its attributes"

    def __init__(self):
        self.files, self.asked = {}, []
        self.breaks, self.statuses = [], [] # hang up after so many bytes; answer with these codes first
        self.etag, self.date, self.headers = '"v1"', None, {}
        self.ranges, self.lengths, self.shift = True, True, 0 # knows Range? tells the length? answers from the right place?
        self.chunked = False # sends pieces with their lengths, and no length of all
        self.step, self.pause, self.hang, self.release = 0, 0, False, threading.Event() # slow in steps, or silent at the end
        self.http = ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
        self.http.daemon_threads, self.http.state = True, self
        threading.Thread(target=self.http.serve_forever, args=(.02,), daemon=True).start()

    def url(self, name, body):
        "Serve `body` under `name`"
        self.files['/' + name] = body
        return f'http://127.0.0.1:{self.http.server_port}/{name}'

    @property
    def ranges_asked(self): return [h.get('Range') for h in self.asked]

    def stop(self):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
