"""Color profiles by hand, for tests: ICC version 2, primaries and one tone curve."""
import struct

import numpy as np

SRGB = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
P3 = [(0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841)]


def icc(name, primaries=P3, curve=None, kind=b"RGB "):
    """Bytes of a profile; `curve` maps [0, 1] to light, by default as sRGB does."""
    def fixed(*values): return b"".join(struct.pack(">i", round(x * 65536)) for x in values)
    def xyz(values): return b"XYZ \0\0\0\0" + fixed(*values)
    v = np.linspace(0, 1, 1024)
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) if curve is None else curve(v)
    table = b"curv\0\0\0\0" + struct.pack(">I", 1024) + (65535 * light).round().astype(">u2").tobytes()
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + bytes(79), b"wtpt": xyz((0.9642, 1, 0.8249))}
    tags |= {b"kTRC": table} if kind == b"GRAY" else dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries))) | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), table)
    body, index, start = b"", b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        value += bytes(-len(value) % 4)
        index += tag + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s12s4s", start + len(body), bytes(4), 0x02100000, b"mntr", kind, b"XYZ ", bytes(12), b"acsp")
    return head + bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48) + struct.pack(">I", len(tags)) + index + body
