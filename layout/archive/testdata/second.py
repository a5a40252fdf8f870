# Writes an .oci file, and its parts, of a layout directory by docs/format.md alone.
# usage: second.py LAYOUT FILE PARTSIZE SECONDS
import hashlib
import json
import os
import sys


def header(name, size, typeflag, seconds):
    mode = 0o755 if typeflag == "5" else 0o644
    b = bytearray(512)

    def put(at, text):
        b[at:at + len(text)] = text.encode()

    put(0, name)
    put(100, "%07o" % mode)
    put(108, "0000000")
    put(116, "0000000")
    put(124, "%011o" % size)
    put(136, "%011o" % seconds)
    put(148, " " * 8)
    put(156, typeflag)
    put(257, "ustar\x0000")
    put(329, "0000000")
    put(337, "0000000")
    put(148, "%06o\0 " % sum(b))
    return bytes(b)


def record(key, value):
    rest = " %s=%s\n" % (key, value)
    n = len(rest)
    while n != len(rest) + len(str(n)):
        n = len(rest) + len(str(n))
    return (str(n) + rest).encode()


def padded(data):
    return data + bytes(-len(data) % 512)


def member(name, data, seconds, typeflag="0"):
    out = b""
    if len(name) > 100:
        records = record("path", name)
        out = header("PaxHeaders.0/" + name[:80], len(records), "x", seconds) + padded(records)
    return out + header(name[:100], len(data), typeflag, seconds) + padded(data)


def reached(layout, desc, seen):
    algorithm, hexes = desc["digest"].split(":")
    path = "blobs/%s/%s" % (algorithm, hexes)
    if path in seen:
        return
    with open(os.path.join(layout, path), "rb") as f:
        seen[path] = f.read()
    if not desc["mediaType"].endswith(("index.v1+json", "manifest.v1+json")):
        return
    doc = json.loads(seen[path])
    for below in [doc.get("config")] + doc.get("layers", []) + doc.get("manifests", []):
        if below:
            reached(layout, below, seen)


layout, file, size, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open(os.path.join(layout, "index.json"), "rb") as f:
    index = f.read()
blobs = {}
for entry in json.loads(index)["manifests"]:
    reached(layout, entry, blobs)

whole = member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}', seconds)
whole += member("index.json", index, seconds)
whole += member("blobs/", b"", seconds, "5")
directory = None
for path in sorted(blobs):
    if os.path.dirname(path) != directory:
        directory = os.path.dirname(path)
        whole += member(directory + "/", b"", seconds, "5")
    whole += member(path, blobs[path], seconds)
whole += bytes(1024)
with open(file, "wb") as f:
    f.write(whole)

digest = hashlib.sha256(whole).hexdigest()
cut = [whole[i:i + size] for i in range(0, len(whole), size)]
parts = []
for i, part in enumerate(cut):
    name = "%s.%s.%03d-of-%03d" % (os.path.basename(file), digest[:8], i + 1, len(cut))
    with open(os.path.join(os.path.dirname(file), name), "wb") as f:
        f.write(part)
    parts.append({"name": name, "digest": "sha256:" + hashlib.sha256(part).hexdigest(), "size": len(part)})
manifest = {
    "schemaVersion": 1,
    "mediaType": "application/vnd.gardenlinux.gloci-layout.parts.v1+json",
    "digest": "sha256:" + digest,
    "size": len(whole),
    "parts": parts,
}
with open(file + ".parts.json", "w") as f:
    f.write(json.dumps(manifest, separators=(",", ":")) + "\n")
