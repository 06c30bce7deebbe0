// The address behind the #: `#/jobs?status=failed&q=import`, `#/jobs/ID`. Everything that a colleague should see as well
// stands there: the page, its filters, what is open, what is selected. Nothing of it reaches a server or its log.

const PAGES = ["overview", "jobs", "campaigns", "schedules", "failed", "workers", "audit"];

// { page, id, query }; an address that is none leads to the overview.
export function route(hash = location.hash) {
  const [path, text] = hash.slice(1).split("?");
  const [, page, id] = path.split("/");
  const known = PAGES.includes(page) ? page : "overview";
  return { page: known, id: id && known === page ? decode(id) : null, query: new URLSearchParams(text ?? "") };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// The address of a page; `query` is an object, of which empty fields are left out.
export function href(page, id = null, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
  return `#/${page}${id === null ? "" : `/${encodeURIComponent(id)}`}${text ? `?${text}` : ""}`;
}

// Keeps what a page is set to in the address, without another entry in the history and without drawing it anew.
export function keep(page, id, query) {
  history.replaceState(null, "", href(page, id, query));
}

export function go(address) {
  location.hash = address;
}
