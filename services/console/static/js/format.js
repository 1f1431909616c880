// Numbers and times as the page shows them; a line never breaks before a unit. Times are UTC, as in the logs and the manuals.

const NONE = "–";
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => (value === null || value === undefined ? NONE : number.format(value));
export const percent = (share, digits = 0) => (share === null || share === undefined ? NONE : `${(share * 100).toFixed(digits)}\u00a0%`);
export const basisPoints = (share) => (share === null || share === undefined ? NONE : `${(share * 10_000).toFixed(1)}\u00a0bp`);

export function ms(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 1_000) return `${(value / 1000).toFixed(value >= 10_000 ? 1 : 2)}\u00a0s`;
  return value >= 100 ? `${Math.round(value)}\u00a0ms` : `${value.toFixed(1)}\u00a0ms`;
}

export const time = (atMs) => new Date(atMs).toISOString().slice(11, 19);
export const dateTime = (atMs) => `${new Date(atMs).toISOString().slice(0, 19).replace("T", " ")}`;
export const iso = (atMs) => new Date(atMs).toISOString();

export function duration(fromMs) {
  const seconds = Math.max(0, Math.round(fromMs / 1000));
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

export function bytes(value) {
  return value < 1_048_576 ? `${Math.round(value / 1024)} KiB` : `${(value / 1_048_576).toFixed(1)} MiB`;
}

export function price(value, decimals) {
  return value === null || value === undefined ? NONE : Number(value).toFixed(decimals);
}

export function estimate(one, show) {
  if (!one) return NONE;
  const [value, low, high] = one;
  return low === null ? show(value) : `${show(value)} (${show(low)} to ${show(high)})`;
}
