"""A stand-in for W&B's server on the loopback device: as much of its GraphQL and file protocol as wandb 0.31
uses to open, fill and resume runs, to log and fetch artifacts, and to create sweeps. Not a test by itself.

The questions are wandb's own, recorded from its client; the answers keep to the shapes that the client
parses.
"""

import gzip
import http.server
import json
import re
import threading
import time


class WandbServer:
    """Serves until `close()`. `runs[id]` holds config, summary, history (rows) and the arguments of the last
    upsert; `artifacts[id]` name, type, metadata and files; `delay_s` slows every answer down; `requests` is
    raw."""

    def __init__(self):
        self.runs: dict[str, dict] = {}
        self.sweeps: dict[str, dict] = {}
        self.agents: dict[str, str] = {}
        self.commands: list[dict] = []
        self.artifacts: dict[str, dict] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bytes]] = []
        self.unknown: list[str] = []
        self.delay_s = 0.0
        self.lock = threading.RLock()
        owner = self

        class Handler(_Handler):
            server_state = owner

        self.http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    # ------------------------------------------------------------ answers by operation

    def answer(self, operation, variables):
        handler = getattr(self, f"on_{operation}", None)
        if handler is None:
            self.unknown.append(operation)
            return {}
        with self.lock:
            return handler(variables)

    def on_Viewer(self, _):
        viewer = {
            "id": "viewer",
            "entity": "team",
            "username": "u",
            "email": "",
            "flags": "{}",
            "admin": False,
        }
        return {"viewer": viewer | {"name": "u", "teams": {"edges": []}, "apiKeys": {"edges": []}}}

    def on_ServerFeaturesQuery(self, _):
        return {"serverInfo": {"features": []}}

    def on_RunResumeStatus(self, variables):
        run = self.runs.get(variables["name"])
        if run is None:
            return {"model": None}
        bucket = {
            "id": run["id"],
            "name": variables["name"],
            "displayName": run["displayName"],
            "tags": run["tags"],
        }
        bucket |= {"summaryMetrics": json.dumps(run["summary"]), "config": json.dumps(run["config"])}
        count = len(run["history"])
        bucket |= {"historyLineCount": count, "eventsLineCount": 0, "logLineCount": 0, "notes": None}
        tail = json.dumps([json.dumps(row) for row in run["history"][-1:]])
        bucket |= {"historyTail": tail, "eventsTail": "[]", "wandbConfig": json.dumps({"t": 1})}
        return {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "team"}, "bucket": bucket}}

    def on_UpsertBucket(self, variables):
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, {"id": f"id-{name}", "config": {}, "summary": {}, "history": []})
        for key in (
            "project",
            "entity",
            "groupName",
            "displayName",
            "jobType",
            "tags",
            "sweep",
            "host",
            "program",
        ):
            if variables.get(key) is not None or key not in run:
                run[key] = variables.get(key)
        if variables.get("config"):
            run["config"] |= json.loads(variables["config"])
        entity = {"id": "e", "name": "team"}
        bucket = {"id": run["id"], "name": name, "displayName": run["displayName"], "description": None}
        bucket |= {"config": json.dumps(run["config"]), "sweepName": run["sweep"]}
        bucket |= {"historyLineCount": len(run["history"])}
        bucket["project"] = {"id": "p", "name": run["project"], "entity": entity}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, variables):
        files = [{"name": name, "uploadUrl": self.place(f"{variables['run']}/{name}")} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def on_ArtifactType(self, _):
        return {"project": None}

    def on_CreateArtifact(self, variables):
        wanted = variables["input"]
        identifier = f"artifact{len(self.artifacts)}"
        metadata = json.loads(wanted.get("metadata") or "{}")
        entry = {
            "name": wanted["artifactCollectionName"],
            "type": wanted["artifactTypeName"],
            "metadata": metadata,
        }
        entry |= {"run": wanted["runName"], "files": {}, "committed": False, "digest": wanted["digest"]}
        self.artifacts[identifier] = entry
        sequence = {"id": "seq", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": identifier, "state": "PENDING", "artifactSequence": sequence}}}

    def on_CreateArtifactManifest(self, variables):
        name = f"{variables['artifactID']}/manifest"
        self.artifacts[variables["artifactID"]]["manifest"] = name
        file = {"id": "f", "uploadUrl": self.place(name), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{name}", "file": file}}}

    def on_CreateArtifactFiles(self, variables):
        edges = []
        for file in variables["input"]["artifactFiles"]:
            place = f"{file['artifactID']}/{file['name']}"
            self.artifacts[file["artifactID"]]["files"][file["name"]] = place
            node = {"storagePath": place, "uploadUrl": self.place(place), "uploadHeaders": []}
            node |= {"uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, variables):
        self.artifacts[variables["artifactID"]]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}

    def on_UpsertSweep(self, variables):
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = variables
        sweep = {
            "name": name,
            "id": f"id-{name}",
            "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "team"}},
        }
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def on_GetSweep(self, variables):
        sweep = self.sweeps.get(variables["name"])
        if sweep is None:
            return {"project": None}
        found = {
            "__typename": "Sweep",
            "id": "s",
            "name": variables["name"],
            "displayName": None,
            "method": "grid",
        }
        found |= {"state": "RUNNING", "description": None, "bestLoss": None, "config": sweep["config"]}
        found |= {
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "runCount": 0,
            "runCountExpected": None,
        }
        return {"project": {"sweep": found}}

    def on_SweepWithRuns(self, variables):
        config = self.sweeps[variables["sweep"]]["config"]
        sweep = {"id": "s", "name": variables["sweep"], "method": "grid", "state": "RUNNING", "description": None}
        sweep |= {"config": config, "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None, "updatedAt": None}
        sweep |= {"earlyStopJobRunning": False, "bestLoss": None, "controller": None, "scheduler": None}
        return {"project": {"sweep": sweep | {"runs": {"edges": []}}}}

    def on_CreateAgent(self, variables):
        self.agents[f"agent{len(self.agents)}"] = variables["sweep"]
        return {"createAgent": {"agent": {"id": f"agent{len(self.agents) - 1}"}}}

    def on_Heartbeat(self, variables):
        """Hands out `self.commands`, one at a time, then tells the agent to end."""
        busy = json.loads(variables["runState"] or "{}")
        commands = []
        if not busy:
            commands = [self.commands.pop(0)] if self.commands else [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}

    def on_Runs(self, variables):
        sweep = re.search(r'"sweep": ?"([^"]+)"', variables.get("filters") or "")
        edges = []
        for name, run in self.runs.items():
            if sweep and run["sweep"] != sweep.group(1):
                continue
            node = {
                "projectId": 1,
                "id": run["id"],
                "tags": run["tags"] or [],
                "name": name,
                "state": "finished",
            }
            node |= {"displayName": run["displayName"], "sweepName": run["sweep"], "group": run["groupName"]}
            node |= {
                "jobType": run["jobType"],
                "commit": None,
                "readOnly": False,
                "description": None,
                "notes": None,
            }
            node |= {"createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00"}
            node |= {"historyLineCount": len(run["history"]), "user": {"name": "u", "username": "u"}}
            edges.append({"node": node, "cursor": "c"})
        page = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"project": {"internalId": "1", "runCount": len(edges), "readOnly": False, "runs": page}}

    def on_RunOutputArtifacts(self, variables):
        project = {"id": "p", "internalId": "1", "name": variables["project"], "entity": {"name": "team"}}
        edges = []
        for identifier, artifact in self.artifacts.items():
            if artifact["run"] != variables["run"] or not artifact["committed"]:
                continue
            collection = {"__typename": "ArtifactSequence", "name": artifact["name"], "project": project}
            node = {
                "__typename": "Artifact",
                "id": identifier,
                "artifactSequence": collection,
                "versionIndex": 0,
            }
            node |= {
                "artifactType": {"name": artifact["type"]},
                "description": None,
                "tags": [],
                "aliases": [],
            }
            node |= {
                "metadata": json.dumps(artifact["metadata"]),
                "ttlDurationSeconds": -2,
                "ttlIsInherited": True,
            }
            node |= {"historyStep": None, "state": "COMMITTED", "size": 1, "digest": artifact["digest"]}
            node |= {"commitHash": "c", "fileCount": len(artifact["files"]), "updatedAt": None}
            edges.append({"node": node | {"createdAt": "2026-01-01T00:00:00"}})
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"project": {"run": {"artifacts": {"totalCount": len(edges), "pageInfo": page, "edges": edges}}}}

    def on_FetchArtifactManifest(self, variables):
        url = self.place(self.artifacts[variables["id"]]["manifest"])
        return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}

    def on_GetArtifactMembershipFileUrls(self, variables):
        [artifact] = [a for a in self.artifacts.values() if a["name"] == variables["collection"]][-1:]
        edges = [
            {"node": {"__typename": "File", "name": name, "directUrl": self.place(place)}}
            for name, place in artifact["files"].items()
        ]
        files = {
            "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False},
            "edges": edges,
        }
        collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
        return {"project": {"artifactCollection": collection}}

    # ------------------------------------------------------------ files

    def place(self, name):
        return f"{self.url}/upload/{name}"

    def artifact_files(self, artifact):
        """{name: bytes} of a committed artifact."""
        return {name: self.uploads[place] for name, place in artifact["files"].items()}

    def stream(self, run, body):
        with self.lock:
            files = json.loads(body).get("files") or {}
            entry = self.runs[run]
            for line in (files.get("wandb-history.jsonl") or {}).get("content") or []:
                entry["history"].append(json.loads(line))
            for line in (files.get("wandb-summary.json") or {}).get("content") or []:
                entry["summary"] |= json.loads(line)


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """The client drops connections as it ends."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_):
        pass

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        self.server_state.requests.append((self.command, self.path, data))
        return data

    def reply(self, data, kind="application/json"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        data, state = self.body(), self.server_state
        time.sleep(state.delay_s)
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if stream:
            state.stream(stream.group(1), data)
            return self.reply(b"{}")
        if not self.path.endswith("/graphql"):
            return self.reply(b"{}")
        query = json.loads(data)
        found = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
        operation = query.get("operationName") or (found.group(1) if found else "serverInfo")
        answer = {"data": state.answer(operation, query.get("variables") or {})}
        return self.reply(json.dumps(answer).encode())

    def do_PUT(self):
        data = self.body()
        self.server_state.uploads[self.path.removeprefix("/upload/")] = data
        self.reply(b"{}")

    def do_GET(self):
        self.body()
        self.reply(
            self.server_state.uploads.get(self.path.removeprefix("/upload/"), b"{}"),
            "application/octet-stream",
        )
