import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, readdir, readFile, stat } from "node:fs/promises";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { describe, expect, it, onTestFinished } from "vitest";
import { findBinaries } from "../../../testbed/cluster/build.ts";
import { downloadBase, downloadReleases, findChecksum } from "../../../testbed/cluster/download.ts";
import { CONTROL_PLANE, cacheKey, type ToolModule, toolModules } from "../../../testbed/cluster/versions.ts";
import { tarBytes } from "../../../testbed/images/tar.ts";
import { NODE_BINARIES, nodeModules } from "../../../testbed/real-node/versions.ts";
import { RELEASE_BINARIES, releaseModules } from "../../../testbed/rehearsal/versions.ts";
import { freePort } from "../../support/free-port.ts";
import { machine, recorder } from "./machine.ts";
import { temporaryDir } from "./temporary.ts";

/** What a mirror does instead of sending a file. */
type Fault = (response: ServerResponse, content: Buffer) => void;

interface Mirror {
  readonly url: string;
  /** The requested addresses, without redirects. */
  readonly requests: string[];
}

const API_SERVER = "/kube-apiserver";

/** Returns each published file of a release by its address. A program is a text with its own name. */
async function releaseFiles(modules: readonly ToolModule[]): Promise<ReadonlyMap<string, Buffer>> {
  const contents = new Map<string, Buffer>();
  const files = modules.flatMap((module) => ["amd64", "arm64"].flatMap((arch) => module.release(arch)));
  for (const { address, checksums, members, command } of files) {
    const name = basename(address);
    const content = members ? await archive(members) : program(command ?? name);
    const sum = createHash("sha256").update(content).digest("hex");
    contents.set(address, content);
    const list = contents.get(checksums)?.toString() ?? "";
    contents.set(checksums, Buffer.from(members || command ? `${list}${sum}  ${name}\n` : sum));
  }
  return contents;
}

async function archive(members: readonly string[]): Promise<Buffer> {
  const entries = ["README.md", ...members].map((path) => {
    return { path, type: "file", mode: 0o755, uid: 1234, gid: 1234, content: program(basename(path)) } as const;
  });
  return gzipSync(await buffer(tarBytes(entries)));
}

function program(name: string): Buffer {
  return Buffer.from(`official ${name}\n`);
}

/** Starts a server with these files. It redirects each request, as GitHub and dl.k8s.io do. */
async function startMirror(files: ReadonlyMap<string, Buffer>, faults: Record<string, Fault> = {}): Promise<Mirror> {
  const requests: string[] = [];
  const server = createServer(({ url = "" }, response) => {
    const [, folder, address = ""] = /^\/(releases|storage)\/(.*)$/.exec(url) ?? [];
    const content = files.get(address);
    if (content === undefined) return response.writeHead(404).end("not here");
    if (folder === "releases") {
      requests.push(address);
      return response.writeHead(302, { location: `/storage/${address}` }).end();
    }
    const fault = Object.entries(faults).find(([end]) => address.endsWith(end))?.[1];
    if (fault) return fault(response, content);
    return response.end(content);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(async () => {
    server.closeAllConnections();
    await server[Symbol.asyncDispose]();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/releases`, requests };
}

const controlPlane = await toolModules();
const node = await nodeModules();
const release = await releaseModules();
const files = await releaseFiles(controlPlane);

/** Downloads amd64 binaries of the control plane from a mirror. */
async function downloadFrom(url: string, stallMs?: number): Promise<string> {
  const dir = await temporaryDir();
  const options = { base: `${url}/`, arch: "amd64", progress: recorder(), ...(stallMs && { stallMs }) };
  return await downloadReleases(controlPlane, dir, options);
}

describe("a download", () => {
  it.each([
    ["the control plane", controlPlane, CONTROL_PLANE],
    ["the node's programs", node, NODE_BINARIES],
    ["the programs of a release", release, RELEASE_BINARIES],
  ])("has all binaries of %s, as executable files of this user", async (_name, modules, names) => {
    const { url } = await startMirror(await releaseFiles(modules));
    const options = { base: `${url}/`, arch: "arm64", progress: recorder() };
    const bin = await downloadReleases(modules, await temporaryDir(), options);
    expect((await readdir(bin)).sort()).toEqual([...names].sort());
    for (const name of names) {
      expect(await readFile(join(bin, name))).toEqual(program(name));
      const { mode, uid } = await stat(join(bin, name));
      expect(mode & 0o111).toBe(0o111);
      expect(uid).toBe(process.getuid?.());
    }
  });

  it.each<[string, string, Fault, RegExp]>([
    ["that isn't there", API_SERVER, (r) => r.writeHead(404).end(), /the server answered 404$/],
    ["with another checksum", API_SERVER, (r, all) => r.end(Buffer.concat([all, all])), /SHA-256 is \w{64} instead of/],
    ["that is cut before its announced end", API_SERVER, cut({ announced: true }), /the transfer was cut$/],
    ["that is cut while its length is unknown", API_SERVER, cut({ announced: false }), /the transfer was cut$/],
    ["that ends too early", API_SERVER, (r, all) => r.end(half(all)), /SHA-256 is \w{64} instead of/],
    ["whose checksum is a web page", `${API_SERVER}.sha256`, (r) => r.end("<html>"), /no SHA-256 of kube-apiserver$/],
    ["whose checksum is cut", `${API_SERVER}.sha256`, (r, all) => r.end(half(all)), /no SHA-256 of kube-apiserver$/],
  ])("of a file %s fails, and the error says where and why", async (_name, end, fault, why) => {
    const { url } = await startMirror(files, { [end]: fault });
    const failed = downloadFrom(url);
    await expect(failed).rejects.toThrow(why);
    await expect(failed).rejects.toThrow(`${url}/`);
  });

  it.each<[string, Fault]>([
    ["before the answer", () => {}],
    ["in the middle of a file", (response, all) => void response.writeHead(200).write(half(all))],
  ])("that stalls %s is given up", async (_name, fault) => {
    const { url } = await startMirror(files, { [API_SERVER]: fault });
    await expect(downloadFrom(url, 1_000)).rejects.toThrow(/: the transfer stalled$/);
  });

  it("from a server that isn't there fails with the reason", async () => {
    await expect(downloadFrom(`http://127.0.0.1:${await freePort()}`)).rejects.toThrow(/SHA256SUMS: .*ECONNREFUSED/);
  });

  it("of an archive without a program fails", async () => {
    const [etcd] = controlPlane[0]?.release("amd64") ?? [];
    const wrong = await archive(["other/etcd"]);
    const sum = createHash("sha256").update(wrong).digest("hex");
    const { url } = await startMirror(
      new Map([...files, [etcd?.address ?? "", wrong], [etcd?.checksums ?? "", Buffer.from(sum)]]),
    );
    await expect(downloadFrom(url)).rejects.toThrow(/tar .* Not found in archive/s);
  });
});

function half(content: Buffer): Buffer {
  return content.subarray(0, content.length / 2);
}

/** Sends half of a file and closes the connection. */
function cut({ announced }: { announced: boolean }): Fault {
  return (response, content) => {
    response.writeHead(200, announced ? { "content-length": content.length } : {});
    response.write(half(content), () => response.destroy());
  };
}

describe("the binaries of the control plane", () => {
  it("are downloaded, moved to the cache, and found there without another request", async () => {
    const { url, requests } = await startMirror(files);
    const { env, cache, calls } = await machine({ BERTH_TEST_DOWNLOADS: url });
    const progress = recorder();
    const { dir, from } = await findBinaries({ env, progress });
    expect(from).toBe("download");
    expect(await readdir(cache)).toEqual([basename(dir)]);
    expect(await readFile(join(dir, "kube-scheduler"))).toEqual(program("kube-scheduler"));
    expect(progress.lines).toEqual([
      expect.stringMatching(
        /^Downloading etcd v.* and kubernetes v.* \(kube-apiserver, .*\) \(only once\) from 127\.0\.0\.1:\d+$/,
      ),
      expect.stringMatching(/^Downloaded the control plane in \d+s: /),
    ]);
    const before = requests.length;
    expect(await findBinaries({ env })).toEqual({ dir, from: "cache" });
    expect(requests).toHaveLength(before);
    expect(await calls()).toEqual([""]);
  });

  it("are downloaded once for several callers that need them at once", async () => {
    const { url, requests } = await startMirror(files);
    const { env } = await machine({ BERTH_TEST_DOWNLOADS: url });
    const found = await Promise.all([findBinaries({ env }), findBinaries({ env }), findBinaries({ env })]);
    expect(found.map(({ from }) => from).sort()).toEqual(["cache", "cache", "download"]);
    expect(new Set(requests).size).toBe(requests.length);
  });

  it("are built if one file can't be downloaded, with the reason in one line", async () => {
    const { url } = await startMirror(files, { "/kube-scheduler": cut({ announced: true }) });
    const { env, cache } = await machine({ BERTH_TEST_DOWNLOADS: url });
    const progress = recorder();
    const { dir, from } = await findBinaries({ env, progress });
    expect(from).toBe("build");
    expect(await readdir(cache)).toEqual([basename(dir)]);
    for (const name of CONTROL_PLANE) expect(await readFile(join(dir, name), "utf8")).toMatch(/gocache$/m);
    expect(progress.lines[1]).toMatch(
      /^Could not download the control plane: http:\S+\/kube-scheduler: the transfer was cut\. To use a mirror, set BERTH_TEST_DOWNLOADS to its URL\.$/,
    );
    expect(progress.lines[2]).toMatch(/^Building etcd/);
  });

  it("leave nothing behind if they can be neither downloaded nor built", async () => {
    const { url } = await startMirror(new Map());
    const { env, cache } = await machine({ BERTH_TEST_DOWNLOADS: url, FAKE_FAILURE: "undefined: x" });
    await expect(findBinaries({ env })).rejects.toThrow("undefined: x");
    expect(await readdir(cache)).toEqual([]);
  });

  it("are built ones if downloads are off, even if downloaded ones are in the cache", async () => {
    const { url } = await startMirror(files);
    const { env } = await machine({ BERTH_TEST_DOWNLOADS: url });
    const downloaded = await findBinaries({ env });
    const built = await findBinaries({ env: { ...env, BERTH_TEST_DOWNLOADS: "off" } });
    expect(built.from).toBe("build");
    expect(built.dir).not.toBe(downloaded.dir);
    expect(await findBinaries({ env })).toEqual({ dir: built.dir, from: "cache" });
  });

  it("are downloaded after a killed download, whose folder is removed", async () => {
    const { url } = await startMirror(files);
    const { env, cache } = await machine({ BERTH_TEST_DOWNLOADS: url });
    const key = await cacheKey(controlPlane);
    await mkdir(join(cache, `.building-${key}-0123456789ab`, "download", "bin"), { recursive: true });
    const { dir, from } = await findBinaries({ env });
    expect(from).toBe("download");
    expect(await readdir(cache)).toEqual([basename(dir)]);
  });
});

describe("BERTH_TEST_DOWNLOADS", () => {
  it.each([
    ["unset", undefined, "https://"],
    ["empty", "", "https://"],
    ["off", "off", undefined],
    ["a mirror", "https://mirror.example.com/releases", "https://mirror.example.com/releases/"],
    ["a mirror with a slash", "http://localhost:8080/", "http://localhost:8080/"],
  ])("can be %s", (_name, value, base) => {
    expect(downloadBase({ BERTH_TEST_DOWNLOADS: value })).toBe(base);
  });

  it.each(["on", "mirror.example.com", "file:///srv/mirror", "https://me:secret@mirror.example.com", "https://x/?a=b"])(
    "can't be %s, and the message shows no password",
    (value) => {
      const read = () => downloadBase({ BERTH_TEST_DOWNLOADS: value });
      expect(read).toThrow('BERTH_TEST_DOWNLOADS is neither "off" nor the http or https URL of a mirror');
      expect(read).not.toThrow("secret");
    },
  );
});

describe("a list of checksums", () => {
  const sum = "a".repeat(64);
  it.each([
    ["a digest alone", sum, sum],
    ["a digest alone, in upper case and with a line end", `${sum.toUpperCase()}\n`, sum],
    ["a line of several", `${"b".repeat(64)}  other\n${sum}  file\n`, sum],
    ["a line for a file read as binary", `${sum} *file\n`, sum],
    ["only other files", `${sum}  other\n`, undefined],
    ["a digest of another length", sum.slice(1), undefined],
    ["nothing", "", undefined],
  ])("with %s", (_name, text, found) => {
    expect(findChecksum(text, "file")).toBe(found);
  });
});

describe("the addresses of a release", () => {
  it("are those of the official servers", () => {
    expect(
      [...controlPlane, ...node].flatMap((module) => module.release("amd64")).map(({ address }) => address),
    ).toEqual([
      "github.com/etcd-io/etcd/releases/download/v3.7.3/etcd-v3.7.3-linux-amd64.tar.gz",
      "dl.k8s.io/release/v1.37.2/bin/linux/amd64/kube-apiserver",
      "dl.k8s.io/release/v1.37.2/bin/linux/amd64/kube-controller-manager",
      "dl.k8s.io/release/v1.37.2/bin/linux/amd64/kube-scheduler",
      "github.com/containerd/containerd/releases/download/v2.4.2/containerd-static-2.4.2-linux-amd64.tar.gz",
      "dl.k8s.io/release/v1.37.2/bin/linux/amd64/kubelet",
      "dl.k8s.io/release/v1.37.2/bin/linux/amd64/kube-proxy",
    ]);
  });
});
