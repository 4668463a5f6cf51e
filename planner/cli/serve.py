"""`plan serve` answers questions over HTTP, on this machine alone unless told: JSON for programs, a page for people."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner import interrupts
from planner.cli.options import CatalogOption, say
from planner.errors import PlannerError, ScenarioError

if TYPE_CHECKING:
    from planner.scenario.records import Scenario
    from planner.service.app import Settings

MOST_CONNECTIONS = 1000
START = {"qps": "200", "min_quality": "0.8"}  # what the page begins with where nothing else is given


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the service listens, and how much it takes on."""

    port: Annotated[int, typer.Option("--port", help="port to listen at; 0: any that is free", metavar="N", min=0, max=65535)] = 8099
    host: Annotated[str, typer.Option("--host", help="address to listen at, for others than this machine", metavar="ADDRESS")] = "127.0.0.1"
    workers: Annotated[
        int, typer.Option("--workers", help="processes that solve (as many as cores, at most 4)", metavar="N", min=0, max=64, show_default=False)
    ] = 0
    queue: Annotated[int, typer.Option("--queue", help="questions that may wait for one", metavar="N", min=0, max=10_000)] = 100
    rate: Annotated[int, typer.Option("--rate", help="most questions a minute from one address", metavar="N", min=1, max=10**6)] = 600
    longest: Annotated[str, typer.Option("--longest", help="longest time for one answer, whatever the question allows", metavar="TIME")] = "30s"

    @property
    def is_local(self) -> bool:
        """Whether only this machine is listened to."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def settings(self, folders: tuple[str, ...]) -> Settings:
        """As the service takes them. Raises PlannerError."""
        from planner.scenario.units import parse_duration_s
        from planner.service.answer import Terms
        from planner.service.app import LOOPBACK, Settings

        try:
            seconds = parse_duration_s(self.longest)
        except ValueError as error:
            raise PlannerError(f"'{self.longest}' {error}", "--longest", "such as 30s") from None
        workers = self.workers or min(4, os.cpu_count() or 1)
        return Settings(Terms(folders, seconds), workers, self.queue, self.rate, tuple(dict.fromkeys((*LOOPBACK, self.host))) if self.is_local else ())

    def bound(self) -> socket.socket:
        """The socket that is listened at. Raises PlannerError."""
        try:
            return socket.create_server((self.host, self.port), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        except OSError as error:
            raise PlannerError(f"cannot listen: {error.strerror or error}", f"{self.host}:{self.port}", "choose another --port or --host") from None


def serve(
    file: Annotated[Path | None, typer.Option("-f", "--file", help="scenario in TOML that the page begins with", metavar="FILE")] = None,
    catalog: CatalogOption = None,
    *,
    listening: Listening,
) -> None:
    """Answer questions over HTTP, on this machine alone unless told: POST /plan, and a page.

    plan serve --port 8099
    """
    if not (find_spec("fastapi") and find_spec("uvicorn")):
        raise PlannerError("needs more packages than are installed", "plan serve", "pip install 'inference-planner[serve]'")
    import uvicorn

    from planner.catalog.load import load_catalog
    from planner.service.app import service
    from planner.service.page import page

    first = _first(file)
    folders = (*first.catalog, *(catalog or ()))
    load_catalog(folders)  # one that cannot be read is told now
    app = service(listening.settings(folders), page(first))
    if not listening.is_local:
        say(f"warning: anyone who reaches {listening.host} can ask, without a password or encryption", err=True)
    with listening.bound() as bound:
        host = f"[{listening.host}]" if ":" in listening.host else listening.host
        say(f"listening at http://{host}:{bound.getsockname()[1]} (Ctrl-C ends it)", err=True)
        interrupts.over()  # from here on Ctrl-C is the server's, which ends as it should
        config = uvicorn.Config(app, log_level="warning", ws="none", server_header=False, limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[bound])


def _first(file: Path | None) -> Scenario:
    """The scenario that the page begins with. Raises ScenarioError."""
    from planner.scenario.sources import ask

    scenario = ask({} if file else dict(START), {}, file).scenario
    if scenario.tables.capacities:
        raise ScenarioError("one's own capacities are files; questions over the network name none", str(file), "leave out [tables]")
    return scenario
