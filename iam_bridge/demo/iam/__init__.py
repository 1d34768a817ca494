"""An embedded INDIGO IAM 1.12: one object with its people, keys and faults, and a server for it.

docs/reference/embedded-iam.md tells what it speaks, what it leaves out and every fault.
"""

from iam_bridge.demo.iam.datasets import demo_people, indigo_fixture, synthetic_people
from iam_bridge.demo.iam.directory import UnknownRecord
from iam_bridge.demo.iam.faults import FaultKind
from iam_bridge.demo.iam.records import Certificate, Client, DataSet, Group, Label, LinkedId, Person, SshKey
from iam_bridge.demo.iam.server import ServedIam, running_iam
from iam_bridge.demo.iam.state import EmbeddedIam

__all__ = [
    "Certificate",
    "Client",
    "DataSet",
    "EmbeddedIam",
    "FaultKind",
    "Group",
    "Label",
    "LinkedId",
    "Person",
    "ServedIam",
    "SshKey",
    "UnknownRecord",
    "demo_people",
    "indigo_fixture",
    "running_iam",
    "synthetic_people",
]
