# nix run .#serve, and .#playground as soon as there is a folder playground/.
{
  pkgs,
  packages,
  root,
}:
let
  inherit (pkgs) lib;
  app = command: {
    type = "app";
    program = lib.getExe (
      pkgs.writeShellApplication {
        name = "gemma-triton-${command}";
        text = ''exec ${lib.getExe packages.default} ${command} "$@"'';
      }
    );
  };
in
{
  serve = app "serve";
  default = app "serve";
}
// lib.optionalAttrs (builtins.pathExists (root + "/playground/pyproject.toml")) {
  playground = app "playground";
}
