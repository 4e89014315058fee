/** A read-only registry of container images: `registry-main.ts FOLDER PORT`. The folder is an OCI image layout. */
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";

const [folder = "", port = "0"] = process.argv.slice(2);

interface Index {
  readonly manifests: readonly {
    readonly digest: string;
    readonly annotations?: Readonly<Record<string, string>>;
  }[];
}
const { manifests } = JSON.parse(await readFile(join(folder, "index.json"), "utf8")) as Index;

/** Finds the digest of, for example, `worker` and `1`, under any host name. */
function digestOf(name: string, reference: string): string | undefined {
  if (reference.startsWith("sha256:")) return reference;
  return manifests.find(({ annotations }) =>
    annotations?.["org.opencontainers.image.ref.name"]?.endsWith(`/${name}:${reference}`),
  )?.digest;
}

const server = createServer((request, response) => {
  console.log(request.method, request.url);
  void answer(request.url ?? "").then((found) => {
    if (!found) return response.writeHead(404).end();
    const { digest, type, path, size } = found;
    response.writeHead(200, { "content-type": type, "content-length": size, "docker-content-digest": digest });
    if (request.method === "HEAD") return response.end();
    return createReadStream(path).pipe(response);
  });
});

async function answer(url: string) {
  const [, name = "", kind, reference = ""] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/?]+)/.exec(url) ?? [];
  const digest = kind === "blobs" ? reference : digestOf(name, reference);
  if (digest === undefined || !/^sha256:[0-9a-f]{64}$/.test(digest)) return undefined;
  const path = join(folder, "blobs", digest.replace(":", "/"));
  const type = kind === "blobs" ? "application/octet-stream" : "application/vnd.oci.image.manifest.v1+json";
  const stats = await stat(path).catch(() => undefined);
  return stats && { digest, type, path, size: stats.size };
}

server.listen(Number(port), "127.0.0.1");
