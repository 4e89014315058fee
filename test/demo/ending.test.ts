import { describe, expect, test, vi } from "vitest";
import { Ending } from "../../demo/ending.ts";

describe("the early end", () => {
  test("comes in order at the first signal, and an echo of it changes nothing", () => {
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

  test("comes at once at a second signal, with the exit code of a shell, and says what stays", () => {
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

  test("has the first of several causes", () => {
    using ending = new Ending();
    ending.fail(new Error("first"));
    ending.fail(new Error("second"));
    ending.interrupt("SIGINT", 1_000);
    expect(ending.cause).toEqual({ kind: "failed", error: new Error("first") });
    expect(ending.interrupted).toBe(false);
  });

  test("gives the process's signals back", () => {
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
