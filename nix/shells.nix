# nix develop: what make needs beside Python's own packages, which are poetry.lock's here as everywhere.
# nix develop .#cuda: with the driver's libraries and the CUDA compiler.
{ pkgs }:
let
  inherit (pkgs) lib;
  shell =
    tools: folders:
    pkgs.mkShell {
      packages = [
        pkgs.python312
        pkgs.gnumake
        pkgs.git
        pkgs.curl
        pkgs.nodejs
        pkgs.stdenv.cc # torch.compile
      ]
      ++ tools;
      # The wheels of poetry.lock expect these where other systems have them.
      LD_LIBRARY_PATH = lib.concatStringsSep ":" (
        [
          (lib.makeLibraryPath [
            pkgs.stdenv.cc.cc.lib
            pkgs.zlib
          ])
        ]
        ++ folders
      );
      PYTHON = lib.getExe pkgs.python312;
    };
in
{
  default = shell [ ] [ ];
  cuda = shell [ pkgs.cudaPackages.cuda_nvcc ] [ "/run/opengl-driver/lib" ];
}
