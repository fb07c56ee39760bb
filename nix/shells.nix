# nix develop: the tools that make needs. The Python packages come from poetry.lock, as on every other system.
# nix develop .#cuda: the same with the NVIDIA driver's libraries and the CUDA compiler.
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
        pkgs.stdenv.cc # for the CPU kernels and torch.compile
      ]
      ++ tools;
      # The wheels of poetry.lock look for these libraries in the system's folders.
      LD_LIBRARY_PATH = lib.concatStringsSep ":" (
        [
          (lib.makeLibraryPath [
            pkgs.stdenv.cc.cc.lib
            pkgs.zlib
          ])
        ]
        ++ folders
      );
      # The CPU kernels are compiled with -march=native, which nixpkgs' compiler otherwise removes in a shell.
      NIX_ENFORCE_NO_NATIVE = false;
      PYTHON = lib.getExe pkgs.python312;
    };
in
{
  default = shell [ ] [ ];
  # The torch of poetry.lock is built with CUDA 13.
  cuda = shell [ pkgs.cudaPackages_13.cuda_nvcc ] [ "/run/opengl-driver/lib" ];
}
