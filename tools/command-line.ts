import { type Command, CommanderError, InvalidArgumentError } from "commander";

/** The parsed arguments of a program of this repository. */
export type Arguments<Flags> =
  | { readonly kind: "run"; readonly flags: Flags; readonly names: readonly string[] }
  | { readonly kind: "help"; readonly text: string }
  | { readonly kind: "mistake"; readonly message: string };

/** What to run, with the flags turned into options. */
export type Request<Options> =
  | { readonly kind: "run"; readonly options: Options }
  | { readonly kind: "help"; readonly text: string }
  | { readonly kind: "mistake"; readonly message: string };

export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/**
 * Runs the request. Resolves with the exit code.
 * @param usage a line that is printed after a mistake
 */
export async function obey<Options>(
  request: Request<Options>,
  usage: string,
  run: (options: Options) => Promise<number>,
): Promise<number> {
  switch (request.kind) {
    case "help":
      process.stdout.write(request.text);
      return EXIT.ok;
    case "mistake":
      return refuse(request.message, usage);
    case "run":
      return await run(request.options);
  }
}

/** Prints what is wrong with the arguments. */
export function refuse(message: string, usage: string): number {
  console.error(`${message}\n${usage}`);
  return EXIT.usage;
}

const SECOND_MS = 1_000;
const UNIT_MS: Readonly<Record<string, number>> = { s: SECOND_MS, m: 60 * SECOND_MS, h: 3_600 * SECOND_MS };

/**
 * Reads arguments without printing or exiting.
 * @param command its flags and descriptions; modified
 */
export function readArguments<Flags extends object>(command: Command, argv: readonly string[]): Arguments<Flags> {
  let text = "";
  command.exitOverride().configureOutput({
    writeOut: (more) => {
      text += more;
    },
    writeErr: () => {},
  });
  try {
    command.parse([...argv], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: "help", text };
    return { kind: "mistake", message: error.message.replace(/^error: /, "") };
  }
  return { kind: "run", flags: command.opts<Flags>(), names: command.args };
}

/** Milliseconds of `90s`, `2m`, `1h`, or plain seconds; undefined for any other text. */
export function milliseconds(text: string): number | undefined {
  const [, number, unit = "s"] = /^(\d+(?:\.\d+)?)([smh]?)$/.exec(text) ?? [];
  const ms = Number(number) * (UNIT_MS[unit || "s"] ?? Number.NaN);
  return number === undefined || Number.isNaN(ms) ? undefined : ms;
}

/**
 * Reads a flag's value as a duration, in milliseconds.
 * @param least in milliseconds
 */
export function duration(text: string, least: number): number {
  const ms = milliseconds(text);
  if (ms === undefined) throw new InvalidArgumentError("Write a time such as 30s or 2m.");
  if (ms < least) throw new InvalidArgumentError(`At least ${least / SECOND_MS}s are needed.`);
  return ms;
}

/** Reads a flag's value as a number greater than 0. */
export function positive(most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !(value > 0 && value <= most)) {
      throw new InvalidArgumentError(`Write a number greater than 0, at most ${most}.`);
    }
    return value;
  };
}

export function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(`Write a whole number from ${least} to ${most}.`);
    }
    return value;
  };
}

/** Names of a known set, separated by commas. */
export function namesOf(known: readonly { readonly name: string }[]): (text: string) => string[] {
  return (text) => {
    const names = text.split(",");
    if (names.every((name) => known.some((one) => one.name === name))) return names;
    throw new InvalidArgumentError(`The names are ${known.map(({ name }) => name).join(", ")}.`);
  };
}

/** The seed of random draws. */
export const seed = whole(0, Number.MAX_SAFE_INTEGER);
