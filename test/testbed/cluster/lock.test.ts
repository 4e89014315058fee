import { fork } from "node:child_process";
import { once } from "node:events";
import { access, mkdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { processStart, withLock } from "../../../testbed/cluster/lock.ts";
import { temporaryDir } from "./temporary.ts";

const QUICK = { touchMs: 5 };

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

describe("the lock of a build", () => {
  it("admits one holder at a time", async () => {
    const path = join(await temporaryDir(), "lock");
    let inside = 0;
    let most = 0;
    const enter = () =>
      withLock(
        path,
        async () => {
          inside += 1;
          most = Math.max(most, inside);
          await new Promise(setImmediate);
          inside -= 1;
        },
        QUICK,
      );
    await Promise.all(Array.from({ length: 8 }, enter));
    expect(most).toBe(1);
    expect(await exists(path)).toBe(false);
  });

  it("is free again after a failure", async () => {
    const path = join(await temporaryDir(), "folder", "lock");
    await expect(withLock(path, () => Promise.reject(new Error("no luck")))).rejects.toThrow("no luck");
    expect(await withLock(path, async () => "in")).toBe("in");
  });

  it("names the holder that it waits for once, and stops waiting when it's aborted", async () => {
    const path = join(await temporaryDir(), "lock");
    const held = Promise.withResolvers<void>();
    const inside = Promise.withResolvers<void>();
    const holder = withLock(path, () => {
      inside.resolve();
      return held.promise;
    });
    await inside.promise;
    const told: number[] = [];
    const controller = new AbortController();
    const waiter = withLock(path, async () => {}, {
      ...QUICK,
      signal: controller.signal,
      onWait: (pid) => {
        told.push(pid);
        controller.abort(new Error("enough"));
      },
    });
    await expect(waiter).rejects.toThrow();
    expect(told).toEqual([process.pid]);
    held.resolve();
    await holder;
  });

  it("is taken from a process that was killed", async () => {
    const dir = await temporaryDir();
    const path = join(dir, "lock");
    const program = join(dir, "hold.ts");
    const module = join(import.meta.dirname, "../../../testbed/cluster/lock.ts");
    await writeFile(
      program,
      `import { withLock } from ${JSON.stringify(module)};
       setInterval(() => {}, 1000);
       await withLock(${JSON.stringify(path)}, () => new Promise((resolve) => process.send("held")));`,
    );
    const child = fork(program, { execArgv: [], stdio: "inherit" });
    await once(child, "message");
    expect(JSON.parse(await readFile(path, "utf8"))).toMatchObject({ pid: child.pid });
    child.kill("SIGKILL");
    expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
    // The lock isn't taken because of its age: the default is half a minute.
    expect(await withLock(path, async () => "in", QUICK)).toBe("in");
  });

  it("is taken if its pid belongs to another process by now", async () => {
    const path = join(await temporaryDir(), "lock");
    const own = JSON.parse(await withLock(path, () => readFile(path, "utf8")));
    await writeFile(path, JSON.stringify({ ...own, started: "1" }));
    expect(await withLock(path, async () => "in", QUICK)).toBe("in");
  });

  it.each([
    ["of another pid namespace", JSON.stringify({ pid: 1, started: "1", namespace: "pid:[1]" })],
    ["that was never written", ""],
  ])("is taken from a holder %s only if it wasn't touched for long", async (_name, text) => {
    const path = join(await temporaryDir(), "lock");
    await writeFile(path, text);
    let waited = 0;
    const old = new Date(Date.now() - 60_000);
    const onWait = () => {
      waited += 1;
      void utimes(path, old, old);
    };
    expect(await withLock(path, async () => "in", { ...QUICK, onWait })).toBe("in");
    expect(waited).toBe(1);
  });

  it("isn't removed if another process has taken it in the meantime", async () => {
    const path = join(await temporaryDir(), "lock");
    await withLock(path, () => writeFile(path, "another process"));
    expect(await readFile(path, "utf8")).toBe("another process");
  });

  it("doesn't hide the error for a folder that isn't writable", async () => {
    const path = join(await temporaryDir(), "lock");
    await mkdir(path);
    await expect(withLock(join(path, "..", "lock", "\0"), async () => {})).rejects.toThrow();
  });
});

describe("the start of a process", () => {
  it("is known only while the process lives", async () => {
    expect(processStart(process.pid)).toMatch(/^\d+$/);
    expect(processStart(2 ** 30)).toBeUndefined();
  });
});
