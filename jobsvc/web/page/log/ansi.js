/** Escape sequences of terminals (ECMA-48): colours and styles become spans, other sequences are left out. */

const SEQUENCE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\`-~])/g;
const CONTROLS = /[\0-\x08\x0a-\x1f\x7f-\x9f]/g;
const STYLES = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const ENDS = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };
const BASIC = [0x3b4048, 0xd1242f, 0x1a7f37, 0x9a6700, 0x0969da, 0x8250df, 0x1b7c83, 0x9aa3ad];
const BRIGHT = [0x6e7781, 0xff6a69, 0x2da44e, 0xd4a72c, 0x54aeff, 0xc297ff, 0x3fb0bc, 0xffffff];
const LEVELS = [0, 95, 135, 175, 215, 255];

/** Return the text without escape sequences. */
export function plainText(text) {
  return text.replace(SEQUENCE, "").replace(CONTROLS, picture);
}

/** Return the spans of a text, `{text, style}`: `bold: true`, ..., `color` and `background` as #rrggbb. */
export function parseAnsi(text) {
  const spans = [];
  let [style, start] = [{}, 0];
  const add = (part) => part && spans.push({ text: part.replace(CONTROLS, picture), style });
  for (const { 0: sequence, 1: parameters, 2: kind, index } of text.matchAll(SEQUENCE)) {
    add(text.slice(start, index));
    if (kind === "m") style = applyCodes({ ...style }, parameters.split(";").flatMap(readParameter));
    start = index + sequence.length;
  }
  add(text.slice(start));
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
    if (code === 0) style = {};
    else if (STYLES[code]) style[STYLES[code]] = true;
    else if (ENDS[code]) ENDS[code].forEach((name) => delete style[name]);
    else if (code >= 30 && code <= 39) style.color = readColor(code - 30, BASIC, codes);
    else if (code >= 40 && code <= 49) style.background = readColor(code - 40, BASIC, codes);
    else if (code >= 90 && code <= 97) style.color = hex(BRIGHT[code - 90]);
    else if (code >= 100 && code <= 107) style.background = hex(BRIGHT[code - 100]);
  }
  return style;
}

/** Return the colour that a digit and the codes after it stand for: 8;5;N is one of 256, 8;2;R;G;B any; 9 is none. */
function readColor(digit, palette, codes) {
  if (digit < 8) return hex(palette[digit]);
  const kind = digit === 8 && codes.shift();
  if (kind === 5) return paletteColor(codes.shift());
  return kind === 2 ? rgb(codes.splice(0, 3)) : undefined;
}

function paletteColor(index) {
  if (index < 16) return hex([...BASIC, ...BRIGHT][index]);
  if (index > 231) return rgb(Array(3).fill(8 + 10 * (index - 232)));
  return rgb([36, 6, 1].map((step) => LEVELS[Math.floor((index - 16) / step) % 6]));
}

function rgb(values) {
  return hex(values.reduce((sum, value) => sum * 256 + Math.min(255, value || 0), 0));
}

function hex(color) {
  return `#${color.toString(16).padStart(6, "0")}`;
}
