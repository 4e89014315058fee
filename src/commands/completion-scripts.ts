import type { Command, Option } from "commander";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/**
 * The completion of `berth` for a shell. Everything that it knows is written into the script: a TAB starts no program,
 * so it is as quick on a machine that is busy, and works where only the script is.
 */
export const SCRIPTS: Readonly<Record<Shell, (commands: readonly CommandShape[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

const names = ({ long, short }: FlagShape) => (short === undefined ? [long] : [short, long]);

/** A text in single quotes, for all three shells. */
const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

function bashScript(commands: readonly CommandShape[]): string {
  const valueCases = commands.flatMap(({ name, flags }) => flags.flatMap((flag) => bashValueCase(name, flag)));
  const commandCases = commands.map(({ name, flags, words }) => {
    const all = [...words, ...flags.flatMap(names)];
    return `    ${name}) _berth_words ${quoted(all.join(" "))} ;;`;
  });
  return `# Completion of berth for bash. Load it with: source <(berth completion bash)
_berth_words() {
  COMPREPLY=($(compgen -W "$1" -- "$current"))
}
_berth_files() {
  local IFS=$'\\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -f -- "$current"))
}
_berth() {
  local current="\${COMP_WORDS[COMP_CWORD]}" flag="\${COMP_WORDS[COMP_CWORD - 1]}" command="" i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ "\${COMP_WORDS[i]}" != -* ]]; then
      command="\${COMP_WORDS[i]}"
      break
    fi
  done
  # bash makes three words of --flag=value.
  if [[ "$current" == "=" ]]; then
    current=""
  elif [[ "$flag" == "=" ]]; then
    flag="\${COMP_WORDS[COMP_CWORD - 2]}"
  fi
  case "$command $flag" in
${valueCases.join("\n")}
  esac
  case "$command" in
    "") _berth_words ${quoted([...commands.map(({ name }) => name), "--help", "--version"].join(" "))} ;;
${commandCases.join("\n")}
  esac
}
complete -F _berth berth
`;
}

/** What is offered after a flag; nothing for one that takes no value. */
function bashValueCase(command: string, flag: FlagShape): string[] {
  const patterns = names(flag)
    .map((name) => `"${command} ${name}"`)
    .join(" | ");
  const offer = (words: string) => [`    ${patterns}) ${words}return ;;`];
  switch (flag.value.is) {
    case "none":
      return [];
    case "file":
      return offer("_berth_files; ");
    case "choice":
      return offer(`_berth_words ${quoted(flag.value.of.join(" "))}; `);
    case "any":
      return offer("");
  }
}

/** In a description of zsh's _arguments and _describe, brackets and colons have a meaning. */
const zshText = (text: string) => text.replaceAll(/[[\]:\\]/g, (sign) => `\\${sign}`);

function zshScript(commands: readonly CommandShape[]): string {
  const list = commands.map(({ name, about }) => `    ${quoted(`${name}:${zshText(about)}`)}`);
  const cases = commands.map(({ name, flags, words }) => {
    const parts = [...flags.flatMap(zshFlag), ...(words.length > 0 ? [quoted(`1: :(${words.join(" ")})`)] : [])];
    return `        ${name})\n          _arguments ${parts.join(" \\\n            ")}\n          ;;`;
  });
  return `#compdef berth
# Completion of berth for zsh. Load it with: source <(berth completion zsh)
_berth() {
  local context state state_descr line
  typeset -A opt_args
  local -a commands
  commands=(
${list.join("\n")}
  )
  _arguments -C '1: :->command' '*:: :->rest'
  case $state in
    command) _describe -t commands 'berth command' commands ;;
    rest)
      case $words[1] in
${cases.join("\n")}
      esac
      ;;
  esac
}
if [ "$funcstack[1]" = "_berth" ]; then
  _berth "$@"
else
  compdef _berth berth
fi
`;
}

function zshFlag(flag: FlagShape): string[] {
  const spec = `[${zshText(flag.about)}]${zshValue(flag)}`;
  // A flag may be given again: some are lists.
  return names(flag).map((name) => quoted(`*${name}${spec}`));
}

function zshValue({ placeholder, value }: FlagShape): string {
  const label = zshText(placeholder);
  switch (value.is) {
    case "none":
      return "";
    case "file":
      return `:${label}:_files`;
    case "choice":
      return `:${label}:(${value.of.join(" ")})`;
    case "any":
      return `:${label}: `;
  }
}

/** In fish, a backslash has a meaning within single quotes. */
const fishQuoted = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

function fishScript(commands: readonly CommandShape[]): string {
  const lines = commands.flatMap(({ name, about, flags, words }) => {
    const within = `complete -c berth -n '__fish_seen_subcommand_from ${name}'`;
    return [
      `complete -c berth -n __fish_use_subcommand -a ${name} -d ${fishQuoted(about)}`,
      ...flags.map((flag) => `${within} ${fishFlag(flag)}`),
      ...(words.length > 0 ? [`${within} -a ${fishQuoted(words.join(" "))}`] : []),
    ];
  });
  return `# Completion of berth for fish. Load it with: berth completion fish | source
complete -c berth -f
${lines.join("\n")}
`;
}

function fishFlag({ long, short, about, value }: FlagShape): string {
  const name = [...(short === undefined ? [] : [`-s ${short.slice(1)}`]), `-l ${long.slice(2)}`].join(" ");
  return `${name}${fishValue(value)} -d ${fishQuoted(about)}`;
}

function fishValue(value: FlagShape["value"]): string {
  switch (value.is) {
    case "none":
      return "";
    case "file":
      return " -r -F";
    case "choice":
      return ` -x -a ${fishQuoted(value.of.join(" "))}`;
    case "any":
      return " -x";
  }
}

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
