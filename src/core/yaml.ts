import { LineCounter, parseAllDocuments } from "yaml";

/** A text is no YAML; the message says what is wrong and where, and holds nothing of the text. */
export class YamlError extends Error {}

/**
 * The documents of a YAML stream, as plain values; an empty one is null. A text without any is no documents.
 * @throws YamlError
 */
export function yamlDocuments(text: string): unknown[] {
  const lines = new LineCounter();
  const documents = [...parseAllDocuments(text, { prettyErrors: false, lineCounter: lines })];
  const [broken] = documents.flatMap(({ errors }) => errors);
  if (broken) {
    const { line, col } = lines.linePos(broken.pos[0]);
    // The parser's words quote what they complain about, and that may be a Secret. Its codes do not: BAD_INDENT.
    throw new YamlError(`line ${line}, column ${col}: ${broken.code.toLowerCase().replaceAll("_", " ")}`);
  }
  try {
    return documents.map((document): unknown => document.toJS());
  } catch {
    throw new YamlError("an alias leads nowhere, or there are too many");
  }
}
