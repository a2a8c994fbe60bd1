"""A real Apache Kafka, one node in KRaft mode, for what the mock cannot show: that nothing is lost.

``python -m zenskar.sandbox.kafka_broker fetch`` lets Maven put its jars into ``.kafka/libs`` (43 MB, once); it needs
Java 17 or later. The broker listens on 127.0.0.1 only.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from zenskar.sandbox import processes

VERSION = "4.1.1"
MINIMUM_JAVA = 17
JARS = Path(__file__).resolve().parent.parent.parent / ".kafka" / "libs"

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>zenskar</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
"""

LOG4J = """Configuration:
  status: ERROR
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "%d %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: STDOUT
"""


class KafkaUnavailable(Exception):
    """No Kafka broker can be started here; the message says what is missing."""


def java() -> str:
    """The path of a Java that is new enough.

    Raises:
        KafkaUnavailable: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    for candidate in (str(Path(home) / "bin" / "java") if home else None, shutil.which("java")):
        if candidate and Path(candidate).exists():
            answer = subprocess.run([candidate, "-version"], capture_output=True, text=True, check=False)
            version = re.search(r'version "(\d+)', answer.stderr)
            if version and int(version[1]) >= MINIMUM_JAVA:
                return candidate
    raise KafkaUnavailable(
        f"Apache Kafka needs Java {MINIMUM_JAVA} or later (Debian: apt-get install openjdk-17-jre-headless), "
        "or set KAFKA_BOOTSTRAP_SERVERS to a broker"
    )


def fetched(jars: Path = JARS) -> bool:
    """Whether the jars of this version are there, all of them (the file that says so is written last)."""
    return (jars / f"fetched-{VERSION}").exists()


def fetch(jars: Path = JARS) -> None:
    """Have Maven put Kafka's jars into the folder; nothing to do when they are there.

    Raises:
        KafkaUnavailable: no Java or no Maven, or Maven failed.
    """
    if fetched(jars):
        return
    java()
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable("Fetching Apache Kafka needs Maven (Debian: apt-get install maven)")
    shutil.rmtree(jars, ignore_errors=True)
    jars.mkdir(parents=True)
    pom = jars.parent / "pom.xml"
    pom.write_text(POM)
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    answer = subprocess.run(
        [*command, "-DincludeScope=runtime", f"-DoutputDirectory={jars}"], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise KafkaUnavailable(f"Maven could not fetch Apache Kafka {VERSION}:\n{answer.stdout[-2000:]}")
    (jars / f"fetched-{VERSION}").touch()


@dataclass
class KafkaBroker:
    """One broker that is its own controller.

    Args:
        folder: holds its configuration, log and data; a second ``start`` on it finds its topics again, on its ports.
        jars: where ``fetch`` put Kafka.
    """

    folder: Path
    jars: Path = JARS
    port: int = field(default_factory=processes.free_port)
    controller_port: int = field(default_factory=processes.free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "kafka.log"

    def start(self) -> None:
        """Start the broker and wait until it answers a client.

        Raises:
            KafkaUnavailable: no Java, or the jars were not fetched.
            StartFailed: it did not come up; with the last lines of its log.
        """
        if not fetched(self.jars):
            raise KafkaUnavailable("Apache Kafka was not fetched yet: make kafka")
        self._configure()
        self.process = processes.start(
            self._java("-Xms256m", "-Xmx768m", "kafka.Kafka", self._properties), log=self.log
        )
        processes.wait_for_port(self.process, self.port, name="Kafka", log=self.log, timeout=90)
        try:
            AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 2}).list_topics(timeout=60)
        except KafkaException as exc:
            raise processes.StartFailed(f"Kafka did not answer:\n{processes.last_lines(self.log)}") from exc

    def stop(self, *, with_signal: int = signal.SIGTERM) -> None:
        """Stop it cleanly, or with SIGKILL as a crash would."""
        if self.process is not None:
            processes.stop(self.process, with_signal=with_signal, grace=30)
            self.process = None

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, *arguments: str | Path) -> list[str | Path]:
        log4j = self.folder / "log4j2.yaml"
        options = ["-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{self.jars}/*"]
        return [java(), *options, *arguments]

    def _configure(self) -> None:
        if self._properties.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.yaml").write_text(LOG4J)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", self._properties)
        answer = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            self._properties.unlink()
            raise processes.StartFailed(f"Kafka's storage could not be formatted:\n{answer.stderr[-2000:]}")

    def _settings(self) -> dict[str, object]:
        client, controller = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{client}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "data",
            "num.partitions": 4,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # A broker that was killed may come back once its old session has ended: 9 s by default.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
            "log.cleaner.dedupe.buffer.size": 16_777_216,
        }


def main() -> int:
    if sys.argv[1:] != ["fetch"]:
        print("usage: python -m zenskar.sandbox.kafka_broker fetch", file=sys.stderr)
        return 2
    try:
        fetch()
    except KafkaUnavailable as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"Apache Kafka {VERSION} is in {JARS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
