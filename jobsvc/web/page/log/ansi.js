/** What a terminal shows of a log: text, and its colours and styles by escape sequences (ECMA-48). Pure functions. */

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
export const decode = (bytes) => decoder.decode(bytes);
const SEQUENCE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])/g;
const CONTROLS = /[\0-\x08\x0a-\x1f\x7f-\x9f]/g;

const STYLES = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" }; // 22 to 29 end them
const COLORED = { 3: "color", 4: "background", 9: "color", 10: "background" }; // by the tens of a code
const LEVELS = [0, 95, 135, 175, 215, 255];
const PALETTE = [
  ..."#3b4048 #d1242f #1a7f37 #9a6700 #0969da #8250df #1b7c83 #9aa3ad".split(" "),
  ..."#6e7781 #ff6a69 #2da44e #d4a72c #54aeff #c297ff #3fb0bc #ffffff".split(" "),
  ...LEVELS.flatMap((red) => LEVELS.flatMap((green) => LEVELS.map((blue) => `rgb(${[red, green, blue]})`))),
  ...Array.from({ length: 24 }, (_, index) => `rgb(${Array(3).fill(8 + 10 * index)})`),
];

/** Return the text of a line's bytes after the last carriage return: programs rewrite a line to show progress. */
export function lineText(bytes) {
  return decode(bytes).split(/[\r\n]+/).findLast(Boolean) ?? "";
}

/** Return the text without escape sequences. */
export function plainText(text) {
  return text.replace(SEQUENCE, "").replace(CONTROLS, picture);
}

/** Return the spans of a text, `{text, style}`: `bold: true`, ..., `color` and `background` as in CSS. */
export function parseAnsi(text) {
  const spans = [];
  const parts = text.split(SEQUENCE); // a text, then of each sequence its parameters, its kind and the text after it
  let style = {};
  for (let index = 0; index < parts.length; index += 3) {
    if (parts[index - 1] === "m") style = applyCodes({ ...style }, parts[index - 2].split(";").flatMap(readParameter));
    if (parts[index]) spans.push({ text: parts[index].replace(CONTROLS, picture), style });
  }
  return spans;
}

/** Make a control character visible: those of ASCII have pictures. */
function picture(character) {
  const code = character.charCodeAt(0);
  return code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "\u2421" : "\ufffd";
}

/** Return the codes of a parameter: "38:2::255:0:0" is the same as "38;2;255;0;0". */
function readParameter(parameter) {
  const codes = parameter.split(":").map(Number);
  if (codes[1] === 2 && codes.length > 5) codes.splice(2, 1);
  return codes[0] === 4 ? [codes[1] === 0 ? 24 : 4] : codes;
}

function applyCodes(style, codes) {
  while (codes.length) {
    const code = codes.shift();
    const property = COLORED[Math.floor(code / 10)];
    if (code === 0) style = {};
    else if (property) style[property] = readColor(code, codes);
    else if (code in STYLES) style[STYLES[code]] = true;
    else delete style[STYLES[code - 20]];
    if (code === 22) delete style.bold;
  }
  return style;
}

/** Return the colour of a code and those after it: 8;5;N is one of 256, 8;2;R;G;B any; 9 is none. */
function readColor(code, rest) {
  if (code % 10 < 8) return PALETTE[(code % 10) + (code < 50 ? 0 : 8)];
  const kind = code % 10 === 8 && rest.shift();
  if (kind === 5) return PALETTE[rest.shift()];
  return kind === 2 ? `rgb(${rest.splice(0, 3)})` : undefined;
}
