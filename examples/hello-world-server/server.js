const http = require("http");

const server = http.createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/html" });
  response.end("<H2>Hello World</H2>\n");
});

// A container's first process gets no default signal handlers: without this, `stop` would have to wait.
process.on("SIGTERM", () => process.exit(0));

server.listen(3000, () => console.log("listening on port 3000"));
