import type { Command, Option } from "commander";

/** What may stand after a flag. */
export type ValueShape =
  /** Nothing: the flag alone says it. */
  | { readonly is: "none" }
  | { readonly is: "file" }
  | { readonly is: "choice"; readonly of: readonly string[] }
  /** Only a person knows. */
  | { readonly is: "any" };

export interface FlagShape {
  /** With its dashes. */
  readonly long: string;
  readonly short: string | undefined;
  readonly about: string;
  /** What stands for the value in the help, without its brackets. */
  readonly placeholder: string;
  readonly value: ValueShape;
}

/** One command as a shell completes it. */
export interface CommandShape {
  readonly name: string;
  readonly about: string;
  readonly flags: readonly FlagShape[];
  /** Words that may stand as its argument. */
  readonly words: readonly string[];
}

const FILE_PLACEHOLDERS = new Set(["file", "path"]);

/** The commands of a program, with their flags and choices: all that completion scripts are made from. */
export function shapeOf(program: Command): CommandShape[] {
  return program.commands.map((command) => ({
    name: command.name(),
    about: command.description(),
    flags: [...command.options.map(flagShape), HELP],
    words: command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
  }));
}

const HELP: FlagShape = {
  long: "--help",
  short: "-h",
  about: "Show what the command does and its flags.",
  placeholder: "",
  value: { is: "none" },
};

function flagShape(option: Option): FlagShape {
  const placeholder = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? "";
  return {
    long: option.long ?? "",
    short: option.short,
    about: option.description,
    placeholder,
    value: valueShape(option, placeholder),
  };
}

function valueShape({ argChoices, required, optional }: Option, placeholder: string): ValueShape {
  if (!required && !optional) return { is: "none" };
  if (argChoices) return { is: "choice", of: argChoices };
  if (placeholder.includes("|")) return { is: "choice", of: placeholder.split("|") };
  return FILE_PLACEHOLDERS.has(placeholder) ? { is: "file" } : { is: "any" };
}
