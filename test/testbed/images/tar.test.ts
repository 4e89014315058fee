import { execFile } from "node:child_process";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { MTIME_SECONDS, type TarEntry, tarBytes } from "../../../testbed/images/tar.ts";
import { directory, file } from "../../../testbed/images/tree.ts";
import { temporaryDir } from "../cluster/temporary.ts";

async function bytes(entries: readonly TarEntry[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of tarBytes(entries)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Reads an archive with tar: returns its listing and a folder with its members. */
async function untar(archive: Buffer): Promise<{ lines: string[]; dir: string }> {
  const dir = await temporaryDir();
  const path = join(dir, "archive.tar");
  await writeFile(path, archive);
  const out = join(dir, "out");
  await mkdir(out);
  await promisify(execFile)("tar", ["-xpf", path, "-C", out, "--no-same-owner"]);
  const options = { env: { ...process.env, TZ: "UTC" } };
  const { stdout } = await promisify(execFile)("tar", ["-tvf", path, "--numeric-owner"], options);
  return { lines: stdout.trimEnd().split("\n"), dir: out };
}

describe("an archive", () => {
  test("can be read by tar: types, permissions, owners, and contents", async () => {
    const { lines, dir } = await untar(
      await bytes([
        directory("a", 0o1777, 5, 6),
        file("a/program", "#!/bin/sh\n", 0o755),
        { type: "symlink", path: "a/link", target: "program", mode: 0o777, uid: 0, gid: 0 },
        { type: "hardlink", path: "a/second", target: "a/program", mode: 0o755, uid: 0, gid: 0 },
      ]),
    );
    expect(lines).toEqual([
      expect.stringMatching(/^drwxrwxrwt 5\/6 +0 2000-01-01 00:00 a\/$/),
      expect.stringMatching(/^lrwxrwxrwx 0\/0 +0 2000-01-01 00:00 a\/link -> program$/),
      expect.stringMatching(/^-rwxr-xr-x 0\/0 +10 2000-01-01 00:00 a\/program$/),
      expect.stringMatching(/^hrwxr-xr-x 0\/0 +0 2000-01-01 00:00 a\/second link to a\/program$/),
    ]);
    expect(await readFile(join(dir, "a/second"), "utf8")).toBe("#!/bin/sh\n");
    expect((await stat(join(dir, "a/program"))).mtimeMs).toBe(MTIME_SECONDS * 1000);
  });

  test("is the same for any order of its members", async () => {
    const members = ["b", "a", "a-b", "a.b", "ä"].map((path) => file(path, path));
    const archive = await bytes(members);
    expect(await bytes(members.toReversed())).toEqual(archive);
    expect((await untar(archive)).lines.map((line) => line.split(" ").at(-1))).toHaveLength(5);
  });

  test.each([
    ["exactly as long as the header's field", "n".repeat(100)],
    ["longer than the header's field", `${"folder/".repeat(40)}file`],
    ["not ASCII", "Größe/文件"],
  ])("can contain a path that is %s", async (_, path) => {
    const { dir } = await untar(await bytes([file(path, "found")]));
    expect(await readFile(join(dir, path), "utf8")).toBe("found");
  });

  test("counts the digits of a record's own length, even if one more digit makes it longer", async () => {
    // The lengths around the step from three digits to four: `999 path=...` and `1000 path=...`.
    const folders = "nnnnnnnnn/".repeat(97);
    const paths = Array.from({ length: 12 }, (_, i) => `${10 + i}/${folders}${"x".repeat(7 + i)}`);
    expect(paths[0]).toHaveLength(980);
    const { lines } = await untar(await bytes(paths.map((path) => file(path, ""))));
    expect(lines.map((line) => line.split(" ").at(-1)).sort()).toEqual(paths.toSorted());
  });

  test("preserves long names and long link targets", async () => {
    const path = `${"deep/".repeat(30)}file`;
    const target = `${"../".repeat(50)}elsewhere`;
    const { lines } = await untar(
      await bytes([
        file(path, "found"),
        { type: "symlink", path: `${path}-link`, target, mode: 0o777, uid: 0, gid: 0 },
      ]),
    );
    expect(lines[0]).toContain(path);
    expect(lines[1]).toContain(`${path}-link -> ${target}`);
  });

  test("can contain empty files and files of whole blocks, from memory and from disk", async () => {
    const dir = await temporaryDir();
    const sizes = [0, 1, 511, 512, 513, 3_000_000];
    const members: TarEntry[] = [];
    for (const size of sizes) {
      const source = join(dir, String(size));
      await writeFile(source, Buffer.alloc(size, "x"));
      members.push({ type: "file", path: `disk-${size}`, mode: 0o644, uid: 0, gid: 0, source, size });
      members.push(file(`memory-${size}`, Buffer.alloc(size, "x")));
    }
    const out = (await untar(await bytes(members))).dir;
    for (const size of sizes) {
      for (const from of ["disk", "memory"]) expect((await stat(join(out, `${from}-${size}`))).size).toBe(size);
    }
  });

  test.each([
    ["grew", 1],
    ["shrank", 3],
  ])("is abandoned if a file %s after it was listed", async (_, size) => {
    const source = join(await temporaryDir(), "file");
    await writeFile(source, "xx");
    await expect(bytes([{ type: "file", path: "file", mode: 0o644, uid: 0, gid: 0, source, size }])).rejects.toThrow(
      "changed while it was read",
    );
  });

  test("can't have two members with the same name", async () => {
    await expect(bytes([file("a", "1"), file("b", ""), file("a", "2")])).rejects.toThrow("two members are named a");
  });

  test("rejects a file that is too large for its header", async () => {
    const entry = {
      type: "file",
      path: "big",
      mode: 0o644,
      uid: 0,
      gid: 0,
      source: "/dev/null",
      size: 8 ** 11,
    } as const;
    await expect(bytes([entry])).rejects.toThrow("big is too large");
  });
});
