"""An ssh server in this process, for SSHHost to meet: it runs commands with sh, and takes files by sftp."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import paramiko


class _Files(paramiko.SFTPServerInterface):
    """Files of this machine, as they are."""

    def open(self, path: str, flags: int, attr: Any) -> Any:
        descriptor = os.open(path, flags, 0o600)
        mode = "r+b" if flags & os.O_RDWR else "wb" if flags & os.O_WRONLY else "rb"
        handle = paramiko.SFTPHandle(flags)
        stream = os.fdopen(descriptor, mode)
        handle.readfile = handle.writefile = stream  # type: ignore[attr-defined]
        return handle

    def stat(self, path: str) -> Any:
        return paramiko.SFTPAttributes.from_stat(Path(path).stat())

    def chattr(self, path: str, attr: Any) -> int:
        if attr.st_mode is not None:
            Path(path).chmod(attr.st_mode & 0o777)
        return int(paramiko.SFTP_OK)


class _Rules(paramiko.ServerInterface):
    def __init__(self, server: Server) -> None:
        self.server = server

    def check_auth_publickey(self, username: str, key: Any) -> int:
        is_known = username == "ubuntu" and key == self.server.user_key
        return int(paramiko.AUTH_SUCCESSFUL if is_known else paramiko.AUTH_FAILED)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        threading.Thread(target=self.server.execute, args=(channel, command.decode()), daemon=True).start()
        return True


class Server:
    """Listens while it is entered; ``user_key`` is who may come in."""

    def __init__(self, user_key: Any, host_key: Any, port: int = 0) -> None:
        self.user_key, self.host_key = user_key, host_key
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self.socket.getsockname()[1])
        self.connections = 0
        self.transports: list[Any] = []

    def __enter__(self) -> Server:
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)
        self.drop()

    def drop(self) -> None:
        """Cut every connection."""
        for transport in self.transports:
            transport.close()
            transport.join(5)
        self.transports.clear()

    def execute(self, channel: Any, command: str) -> None:
        process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        pumps = [
            threading.Thread(target=self.pump, args=(stream, send), daemon=True)
            for stream, send in ((process.stdout, channel.sendall), (process.stderr, channel.sendall_stderr))
        ]
        for pump in pumps:
            pump.start()
        assert process.stdin is not None
        while data := channel.recv(65536):
            process.stdin.write(data)
        process.stdin.close()
        status = process.wait()
        for pump in pumps:
            pump.join(5)
        channel.send_exit_status(status if status >= 0 else 128 - status)
        channel.close()

    @staticmethod
    def pump(stream: Any, send: Any) -> None:
        with stream:
            while data := os.read(stream.fileno(), 65536):
                try:
                    send(data)
                except OSError:
                    return

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.host_key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
            self.transports.append(transport)
            try:
                transport.start_server(server=_Rules(self))
            except (paramiko.SSHException, EOFError):
                transport.close()
