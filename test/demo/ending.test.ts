import { describe, expect, test, vi } from "vitest";
import { Ending } from "../../demo/ending.ts";

describe("the early end", () => {
  test("starts in order at the first signal, and ignores an echo of it", () => {
    using ending = new Ending();
    const exit = vi.spyOn(process, "exit").mockImplementation((() => {}) as never);
    try {
      expect(ending.signal.aborted).toBe(false);
      ending.interrupt("SIGINT", 1_000);
      ending.interrupt("SIGINT", 1_010);
      expect(ending.signal.aborted).toBe(true);
      expect(ending.interrupted).toBe(true);
      expect(exit).not.toHaveBeenCalled();
    } finally {
      exit.mockRestore();
    }
  });

  test("is immediate at a second signal, with a shell's exit code, and prints what stays", () => {
    using ending = new Ending();
    const exit = vi.spyOn(process, "exit").mockImplementation((() => {}) as never);
    const farewell = vi.fn();
    ending.onAbrupt = farewell;
    try {
      ending.interrupt("SIGINT", 1_000);
      ending.interrupt("SIGTERM", 3_000);
      expect(farewell).toHaveBeenCalledOnce();
      expect(exit).toHaveBeenCalledExactlyOnceWith(143);
    } finally {
      exit.mockRestore();
    }
  });

  test("keeps the first of several causes", () => {
    using ending = new Ending();
    ending.fail(new Error("first"));
    ending.fail(new Error("second"));
    ending.interrupt("SIGINT", 1_000);
    expect(ending.cause).toEqual({ kind: "failed", error: new Error("first") });
    expect(ending.interrupted).toBe(false);
  });

  test("releases the process's signals", () => {
    const count = () => process.listenerCount("SIGHUP");
    const before = count();
    {
      using ending = new Ending();
      ending.listen();
      expect(count()).toBe(before + 1);
    }
    expect(count()).toBe(before);
  });
});
